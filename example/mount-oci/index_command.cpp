// SPDX-License-Identifier: Apache-2.0
// index: into the store, and as files for other tools.
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/index_file.hpp>
#include <erofs_oci/gzip/window.hpp>
#include <erofs_oci/gzip/zinfo.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/source/local.hpp>

#include "indexing.hpp"
#include "progress.hpp"
#include "reading.hpp"
#include "verify.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::BlobEncoding;
using erofs_oci::ByteSink;
using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::Local;
using erofs_oci::StoredLayer;

// ---------------------------------------------------------------- files for other tools

/// Writes a file that is there whole or not at all.
/// @param fill  `(ByteSink) -> Result<void>`
template <class Fill>
Result<void> write_whole(std::string const& path, Fill const& fill) {
  auto const part = path + ".part";
  UniqueFd const fd(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!fd) return fail_errno(errno, part);
  Result<void> written;
  auto done = fill([&](std::span<std::byte const> piece) {
    written = erofs_oci::write_full(fd.get(), piece);
    return written.has_value();
  });
  if (done) done = written;
  if (done && ::rename(part.c_str(), path.c_str()) != 0) done = fail_errno(errno, "rename");
  if (done) return {};
  ::unlink(part.c_str());
  return fail(done.error(), path);
}

Result<void> write_index(StoredLayer const& layer, std::string const& path) {
  auto index = layer.index.index;
  erofs_oci::Bytes window(erofs_oci::gzip_window_size);
  if (index.encoding == BlobEncoding::gzip) {
    for (std::size_t i = 0; i < index.spans.size(); ++i) {
      auto const part = std::span(window).first<erofs_oci::gzip_window_size>();
      if (auto ok = layer.index.window(i, part); !ok) return ok;
      // What is not used is zero already.
      auto const used = std::ranges::any_of(window, [](auto b) { return b != std::byte{0}; });
      auto const use = used ? erofs_oci::WindowUse().set() : erofs_oci::WindowUse();
      index.spans[i].packed_window = erofs_oci::pack_window(part, use);
    }
  }
  return write_whole(path, [&](auto const& sink) {
    return erofs_oci::write_index_file<erofs_oci::Sha256>(index, sink);
  });
}

/// NAME.erofs, NAME.index and, of a gzip, NAME.zinfo.
Result<void> write_files(StoredLayer const& layer, std::string const& name) {
  auto const& tarindex = layer.tarindex;
  auto ok = write_whole(
      name + ".erofs", [&](auto const& sink) { return tarindex.stream(0, tarindex.size(), sink); });
  if (ok) ok = write_index(layer, name + ".index");
  if (!ok || layer.index.index.encoding != BlobEncoding::gzip) return ok;
  return write_whole(name + ".zinfo", [&](auto const& sink) {
    return erofs_oci::write_zinfo(layer.index.gzip(), layer.index.index.span_size, sink);
  });
}

/// By what to call a layer's files: its digest, or the name of the file that it is.
std::string file_name(FoundImage const& found, FoundLayer const& layer) {
  if (found.digest) return layer.descriptor.digest.hex();
  auto const colon = found.name.starts_with("file:") ? 5u : 0u;
  return std::filesystem::path(found.name.substr(colon)).filename().string();
}

// ---------------------------------------------------------------- reading back

/// As other tools read it: from the files that were written.
Result<std::optional<std::string>> verify_files(FoundLayer const& layer, std::string const& name,
                                                BlobEncoding encoding, Reading const& reading) {
  auto tarindex = Local::open(name + ".erofs");
  if (!tarindex) return fail(tarindex.error());
  auto const stop = reading.guard.stop_token();
  auto blob = AnySource(layer.blob);
  if (encoding == BlobEncoding::plain) {
    return find_difference(AnySource(layer.blob), {AnySource(*std::move(tarindex)), blob}, stop);
  }
  auto zinfo = Local::open(name + ".zinfo");
  if (!zinfo) return fail(zinfo.error());
  auto index = erofs_oci::read_zinfo(AnySource(*std::move(zinfo)));
  if (!index) return fail(index.error());
  auto contents = erofs_oci::Gzran<AnySource>::make(std::move(blob), *std::move(index));
  if (!contents) return fail(contents.error());
  return find_difference(AnySource(layer.blob),
                         {AnySource(*std::move(tarindex)), AnySource(*std::move(contents))}, stop);
}

Result<std::optional<std::string>> verify_layer(FoundLayer const& layer, StoredLayer const& index,
                                                std::optional<std::string> const& name,
                                                Reading const& reading) {
  if (name) return verify_files(layer, *name, index.index.index.encoding, reading);
  auto const contents =
      erofs_oci::open_contents(layer.layer(), index, read_options(reading.options.image));
  if (!contents) return fail(contents.error());
  return find_difference(AnySource(layer.blob), {index.tarindex, *contents},
                         reading.guard.stop_token());
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
              size_text(number("decoded_size")) + ", " + std::to_string(number("spans")) +
              " spans, tarindex " + size_text(number("tarindex_size"));
  if (layer.contains("files")) text += ", files " + layer.at("files").get<std::string>() + ".*";
  if (!layer.contains("verified")) return text + "\n";
  if (layer.at("verified").get<bool>()) return text + ", verified\n";
  return text + "\n  differs: " + layer.at("difference").get<std::string>() + "\n";
}

/// One layer: written and verified as the options say; yields what there is to tell.
Result<erofs_oci::json::Value> finish_layer(Reading const& reading, FoundImage const& found,
                                            std::size_t i, StoredLayer const& stored) {
  auto const& read = reading.options.read;
  auto const& layer = found.layers[i];
  auto object = layer_json(layer, stored);
  std::optional<std::string> name;
  if (!read.output.empty()) {
    name = read.output + "/" + file_name(found, layer);
    if (auto ok = write_files(stored, *name); !ok) return fail(ok.error());
    put_name(object, "files", *name);
  }
  if (!read.verify) return object;
  auto const different = verify_layer(layer, stored, name, reading);
  if (!different) return fail(different.error(), layer_name(layer.number, layer.descriptor));
  object["verified"] = !different->has_value();
  if (*different) put_name(object, "difference", **different);
  return object;
}

Result<Status> index_layers_of(Reading const& reading, FoundImage& found) {
  auto const indexed = index_image(found, reading.options.image, reading.log, &reading.guard);
  if (!indexed) return fail(indexed.error(), found.name);
  ExitOnSignal::Pause const pause(reading.guard);
  Status status = 0;
  for (std::size_t i = 0; i < found.layers.size(); ++i) {
    auto const told = finish_layer(reading, found, i, indexed->indexes[i]);
    if (!told) return fail(told.error(), found.name);
    if (!told->value("verified", true)) status = 1;
    auto const ok = reading.options.read.json ? reading.output.put_json(*told)
                                              : reading.output.put(layer_text(*told));
    if (!ok) return fail(ok.error());
  }
  return status;
}

}  // namespace

Result<Status> run_index(Reading const& reading) {
  auto const& read = reading.options.read;
  if (has_own_index(reading.options.image)) {
    return fail(Errc::invalid_argument, "index makes what oci.tarindex and oci.zinfo would give");
  }
  if (!read.output.empty() && ::mkdir(read.output.c_str(), 0777) != 0 && errno != EEXIST) {
    return fail_errno(errno, read.output);
  }
  auto found = find_image(reading.options.image, reading.log);
  if (!found) return fail(found.error());
  auto const native = is_native(*found);
  if (!native) return fail(native.error());
  if (*native) {
    return fail(Errc::unsupported, found->name + ": an EROFS image needs no index");
  }
  return index_layers_of(reading, *found);
}

}  // namespace mount_oci
