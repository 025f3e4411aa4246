// SPDX-License-Identifier: Apache-2.0
// index: into the store, and as files for other tools.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/gzip/zinfo.hpp>
#include <erofs_oci/host/mount_point.hpp>
#include <erofs_oci/image/image_name.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/posix/replace_file.hpp>
#include <erofs_oci/source/local.hpp>
#include <erofs_oci/tarindex/index_file.hpp>

#include "indexing.hpp"
#include "layer_cache.hpp"
#include "merkle_tree.hpp"
#include "progress.hpp"
#include "reading.hpp"
#include "verify.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::BlobEncoding;
using erofs_oci::ByteSink;
using erofs_oci::fail;
using erofs_oci::Local;
using erofs_oci::StoredLayer;

// ---------------------------------------------------------------- files for other tools

/// Writes a whole file or none.
/// @param fill  `(ByteSink) -> Result<void>`
template <class Fill>
Result<void> write_whole(std::string const& path, Fill const& fill) {
  auto const write = [&](int fd) -> Result<void> {
    Result<void> written;
    auto const done = fill([&](std::span<std::byte const> piece) {
      written = erofs_oci::write_full(fd, piece);
      return written.has_value();
    });
    return done ? written : done;
  };
  EROFS_OCI_TRY(erofs_oci::replace_file(path, 0666, write), path);
  return {};
}

Result<void> write_bytes(erofs_oci::Bytes const& bytes, std::string const& path) {
  return write_whole(path, [&](auto const& sink) -> Result<void> {
    static_cast<void>(sink(bytes));  // what it fails with is write_whole()'s to tell
    return {};
  });
}

/// NAME.erofs, NAME.index, NAME.links if there are such links and, of a gzip, NAME.zinfo.
Result<void> write_files(StoredLayer const& layer, std::string const& name) {
  EROFS_OCI_TRY_ASSIGN(auto const files, erofs_oci::index_files(layer));
  EROFS_OCI_TRY(write_bytes(files.tarindex, name + ".erofs"));
  EROFS_OCI_TRY(write_bytes(files.index, name + ".index"));
  if (!files.links.empty()) EROFS_OCI_TRY(write_bytes(files.links, name + ".links"));
  if (layer.index.index.encoding != BlobEncoding::gzip) return {};
  return write_whole(name + ".zinfo", [&](auto const& sink) {
    // Its windows are whole, so one for each of our checkpoints would take a tenth of the blob.
    constexpr std::uint64_t span_size = 4 << 20;
    return erofs_oci::write_zinfo(layer.index.gzip().spaced(span_size), span_size, sink);
  });
}

/// The name for a layer's files: its digest, or the name of the file that it is.
std::string file_name(FoundImage const& found, FoundLayer const& layer) {
  if (found.digest) return layer.descriptor.digest.hex();
  return std::filesystem::path(erofs_oci::ImageName::parse(found.name).path).filename().string();
}

// ---------------------------------------------------------------- reading back

/// Verifies the files that were written, as other tools read them.
Result<IndexToVerify> open_files(FoundLayer const& layer, std::string const& name,
                                 BlobEncoding encoding) {
  EROFS_OCI_TRY_ASSIGN(auto tarindex, Local::open(name + ".erofs"));
  if (encoding == BlobEncoding::plain) {
    return IndexToVerify{AnySource(std::move(tarindex)), AnySource(layer.blob)};
  }
  EROFS_OCI_TRY_ASSIGN(auto zinfo, Local::open(name + ".zinfo"));
  EROFS_OCI_TRY_ASSIGN(auto index, erofs_oci::read_zinfo(AnySource(std::move(zinfo))));
  EROFS_OCI_TRY_ASSIGN(auto contents,
                       erofs_oci::Gzran<AnySource>::make(AnySource(layer.blob), std::move(index)));
  return IndexToVerify{AnySource(std::move(tarindex)), AnySource(std::move(contents))};
}

Result<std::optional<std::string>> verify_layer(FoundLayer const& layer, StoredLayer const& index,
                                                std::optional<std::string> const& name,
                                                Reading const& reading) {
  auto const encoding = index.index.index.encoding;
  EROFS_OCI_TRY_ASSIGN(auto const opened,
                       name ? open_files(layer, *name, encoding)
                            : index_to_verify(layer, index, reading.options.image));
  return compare_layer(AnySource(layer.blob), layer.descriptor.digest.algorithm(), opened,
                       reading.guard.stop_token())
      .map([](LayerComparison compared) { return std::move(compared.difference); });
}

// ---------------------------------------------------------------- all together

erofs_oci::json::Value layer_json(FoundLayer const& layer, StoredLayer const& stored) {
  auto const& index = stored.index.index;
  erofs_oci::json::Value object{
      {"number", layer.number},
      {"digest", layer.descriptor.digest.to_string()},
      {"size", index.blob_size},
      {"decoded_size", index.decoded_size},
      {"encoding", index.encoding == BlobEncoding::gzip ? "gzip" : "plain"},
      {"spans", index.spans.size()},
      {"tarindex_size", index.tarindex_size}};
  if (index.diff_id != erofs_oci::Digest()) object["diff_id"] = index.diff_id.to_string();
  return object;
}

std::string layer_text(erofs_oci::json::Value const& layer) {
  auto const number = [&](char const* key) { return layer.at(key).get<std::uint64_t>(); };
  auto text = "Layer " + std::to_string(number("number")) + ":  " +
              layer.at("digest").get<std::string>() + "  " + size_text(number("size")) + " -> " +
              size_text(number("decoded_size")) + ", " + counted(number("spans"), "span") +
              ", tarindex " + size_text(number("tarindex_size"));
  if (layer.contains("files")) text += ", files " + layer.at("files").get<std::string>() + ".*";
  if (!layer.contains("verified")) return text + "\n";
  if (layer.at("verified").get<bool>()) return text + ", verified\n";
  return text + "\n  differs: " + layer.at("difference").get<std::string>() + "\n";
}

/// Writes and verifies one layer as the options want; yields its line of output.
/// @param directory  for its files, which another user can lead nowhere else; empty: no files
Result<erofs_oci::json::Value> finish_layer(Reading const& reading, FoundImage const& found,
                                            std::size_t i, StoredLayer const& stored,
                                            std::string const& directory) {
  auto const& read = reading.options.read;
  auto const& layer = found.layers[i];
  auto object = layer_json(layer, stored);
  std::optional<std::string> name;
  if (!read.output.empty()) {
    auto const file = '/' + file_name(found, layer);
    name = directory + file;
    EROFS_OCI_TRY(write_files(stored, *name), read.output + file);
    put_name(object, "files", read.output + file);
  }
  if (!read.verify) return object;
  EROFS_OCI_TRY_ASSIGN(auto const different, verify_layer(layer, stored, name, reading),
                       layer_name(layer.number, layer.descriptor));
  object["verified"] = !different.has_value();
  if (different) put_name(object, "difference", *different);
  return object;
}

/// Makes the Merkle tree of the whole image; yields its line of output.
/// @param to_push  gets the tree if it is to be pushed
Result<erofs_oci::json::Value> finish_image(Reading const& reading, FoundImage const& found,
                                            IndexedImage const& indexed, ImageOptions const& image,
                                            std::optional<TreeToPush>& to_push) {
  if (!indexed.store) {
    return fail(Errc::invalid_argument,
                "--verity: the Merkle tree is kept in the store, and "
                "oci.store is none");
  }
  EROFS_OCI_TRY_ASSIGN(auto const merged,
                       erofs_oci::open_layers(found.image_layers(), indexed.indexes,
                                              read_options(image), indexed.options(reading.log)));
  EROFS_OCI_TRY_ASSIGN(auto const tree,
                       make_tree(merged, *indexed.store, reading.guard.stop_token()));
  if (reading.push != nullptr) {
    EROFS_OCI_TRY_ASSIGN(to_push, tree_to_push(merged, *indexed.store, tree));
  }
  EROFS_OCI_TRY_ASSIGN(auto const shape, erofs_oci::VerityShape::make(tree.data_size));
  return erofs_oci::json::Value{{"root_hash", tree.root.hex()},
                                {"device_size", tree.data_size},
                                {"tree_size", shape.file_size()}};
}

std::string image_text(erofs_oci::json::Value const& tree) {
  return "Merkle tree:  root hash " + tree.at("root_hash").get<std::string>() + ", " +
         size_text(tree.at("device_size").get<std::uint64_t>()) + " -> " +
         size_text(tree.at("tree_size").get<std::uint64_t>()) + "\n";
}

/// Indexes one image, and does with the indexes what the options want.
/// @param directory  for files, which another user can lead nowhere else; empty: no files
Result<Status> index_one(Reading const& reading, ImageOptions const& image,
                         std::string const& directory) {
  auto const& read = reading.options.read;
  EROFS_OCI_TRY_ASSIGN(auto found, find_image(image, reading.log));
  EROFS_OCI_TRY_ASSIGN(auto const native, is_native(found));
  if (native)
    return fail(
        Errc::unsupported,
        found.name + ": an EROFS image needs no index file; it is indexed when it is mounted");
  EROFS_OCI_TRY_ASSIGN(auto const indexed, index_image(found, image, reading.log, &reading.guard),
                       found.name);
  ExitOnSignal::Pause const pause(reading.guard);
  Status status = 0;
  for (std::size_t i = 0; i < found.layers.size(); ++i) {
    EROFS_OCI_TRY_ASSIGN(auto const told,
                         finish_layer(reading, found, i, indexed.indexes[i], directory),
                         found.name);
    if (!told.value("verified", true)) status = 1;
    EROFS_OCI_TRY(read.json ? reading.output.put_json(told) : reading.output.put(layer_text(told)));
  }
  std::optional<TreeToPush> to_push;
  if (read.verity && status == 0) {
    EROFS_OCI_TRY_ASSIGN(auto const tree, finish_image(reading, found, indexed, image, to_push),
                         found.name);
    EROFS_OCI_TRY(read.json ? reading.output.put_json(tree) : reading.output.put(image_text(tree)));
  }
  if (reading.push == nullptr || status != 0) return status;
  EROFS_OCI_TRY_ASSIGN(auto const pushed,
                       push_indexes(*reading.push, reading.options.push, found, indexed,
                                    to_push ? &*to_push : nullptr, reading.log),
                       "push");
  EROFS_OCI_TRY(read.json ? reading.output.put_json(pushed)
                          : reading.output.put(push_text(pushed)));
  auto const& target = *reading.push;
  if (!target.layout && !reading.options.push.dry_run && image.layer_cache) {
    image.layer_cache->note_referrer(target.repository, found.manifest_at.digest, reading.log);
  }
  return status;
}

}  // namespace

Result<Status> run_index(Reading const& reading) {
  auto const& read = reading.options.read;
  if (has_own_index(reading.options.image)) {
    return fail(Errc::invalid_argument,
                "index: oci.tarindex and oci.zinfo cannot be set, index makes such files");
  }
  std::optional<erofs_oci::MountPoint> output;
  if (!read.output.empty()) {
    EROFS_OCI_TRY_ASSIGN(output, erofs_oci::MountPoint::open(read.output));
  }
  auto const directory = output ? output->place() : std::string();
  auto image = reading.options.image;
  if (!reading.options.push.all_platforms) return index_one(reading, image, directory);
  EROFS_OCI_TRY_ASSIGN(auto const platforms, platforms_of(image, reading.log), image.image);
  Status status = 0;
  for (auto const& platform : platforms) {
    image.platform = platform;
    auto const done = index_one(reading, image, directory);
    if (!done) reading.complain(erofs_oci::make_error(done.error(), platform));
    status = std::max(status, done.value_or(1));
  }
  return status;
}

}  // namespace mount_oci
