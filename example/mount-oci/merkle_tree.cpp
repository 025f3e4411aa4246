// SPDX-License-Identifier: Apache-2.0
#include "merkle_tree.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <erofs_oci/combinator/concat.hpp>
#include <erofs_oci/combinator/padded.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/digest/source_digest.hpp>
#include <erofs_oci/source/memory.hpp>

namespace mount_oci {

using erofs_oci::AnySource;
using erofs_oci::Digest;
using erofs_oci::explain;
using erofs_oci::fail;
using erofs_oci::MountWay;
using erofs_oci::VerityTable;
using erofs_oci::VerityTree;

Result<VerityTree> make_tree(erofs_oci::MergedImage const& image,
                             erofs_oci::IndexStore const& store, std::stop_token const& stop) {
  auto const& source = image.device.source;
  EROFS_OCI_TRY_ASSIGN(auto const shape, erofs_oci::VerityShape::make(source.size()));
  VerityTree tree{{}, source.size()};
  auto const fill = [&](int fd) -> Result<void> {
    erofs_oci::VerityTreeBuilder builder(shape, [fd](std::uint64_t offset, auto block) {
      return erofs_oci::pwrite_full(fd, offset, block);
    });
    Result<void> built;
    EROFS_OCI_TRY(stream(source, 0, source.size(), [&](std::span<std::byte const> piece) {
      built = builder.update(piece);
      return built.has_value() && !stop.stop_requested();
    }));
    EROFS_OCI_TRY(built);
    if (stop.stop_requested()) return fail(Errc::stopping, "Merkle tree");
    EROFS_OCI_TRY_ASSIGN(tree.root, builder.finish());
    return {};
  };
  EROFS_OCI_TRY(store.put_verity(image.key, shape.file_size(), fill));
  return tree;
}

Result<TreeToPush> tree_to_push(erofs_oci::MergedImage const& image,
                                erofs_oci::IndexStore const& store, VerityTree const& tree) {
  EROFS_OCI_TRY_ASSIGN(auto const file, store.find_verity(image.key));
  if (!file) return fail(Errc::not_found, "the Merkle tree, which was just made");
  TreeToPush out{erofs_oci::Bytes(static_cast<std::size_t>(file->size())), tree.root, {}};
  EROFS_OCI_TRY(read_exact(*file, 0, out.file));
  EROFS_OCI_TRY_ASSIGN(out.metadata, erofs_oci::digest_of_source(image.metadata));
  return out;
}

Result<void> fetch_tree(erofs_oci::TreeLookup const& lookup, erofs_oci::MergedImage const& image,
                        erofs_oci::IndexStore const& store, Log const& log) {
  EROFS_OCI_TRY_ASSIGN(auto const found, lookup(), "no Merkle tree from the registry");
  if (!found) return {};
  auto const name = "Merkle tree " + found->tree.at.digest.to_string();
  EROFS_OCI_TRY_ASSIGN(auto const shape, erofs_oci::VerityShape::make(image.device.source.size()));
  EROFS_OCI_TRY_ASSIGN(auto const metadata, erofs_oci::digest_of_source(image.metadata));
  if (found->tree.metadata != metadata || found->file.size() != shape.file_size()) {
    log.say(Level::warning, name + ": not of what is mounted here");
    return {};
  }
  auto const fill = [&](int fd) -> Result<void> {
    erofs_oci::Hasher hash(found->tree.at.digest.algorithm());
    erofs_oci::Bytes head;  // two blocks: read_verity_tree() reads no more
    Result<void> written;
    EROFS_OCI_TRY(stream(found->file, 0, shape.file_size(), [&](auto piece) {
      hash.update(piece);
      auto const more = 2 * erofs_oci::VerityShape::hash_block - head.size();
      auto const part = piece.first(std::min<std::size_t>(piece.size(), more));
      head.insert(head.end(), part.begin(), part.end());
      written = erofs_oci::write_full(fd, piece);
      return written.has_value();
    }));
    EROFS_OCI_TRY(written);
    if (hash.finish() != found->tree.at.digest) return fail(Errc::digest_mismatch, name);
    EROFS_OCI_TRY_ASSIGN(auto const file,
                         erofs_oci::Padded<erofs_oci::Memory>::to_size(
                             erofs_oci::Memory(std::move(head)), shape.file_size()));
    EROFS_OCI_TRY_ASSIGN(auto const tree, erofs_oci::read_verity_tree(file));
    if (tree.root == found->tree.root) return {};
    return fail(Errc::mismatch, name + ": it has not the root hash that its artifact names");
  };
  EROFS_OCI_TRY(store.put_verity(image.key, shape.file_size(), fill));
  log.say(Level::info, name + ": from " + found->artifact.to_string() + ", which is signed");
  return {};
}

std::optional<FoundTree> find_tree(erofs_oci::MergedImage const& image,
                                   erofs_oci::IndexStore const& store, Log const& log) {
  auto file = store.find_verity(image.key);
  if (file && !*file) return std::nullopt;
  auto tree = file ? erofs_oci::read_verity_tree(**file) : Result<VerityTree>(fail(file.error()));
  if (tree && tree->data_size != image.device.source.size()) {
    tree = fail(Errc::mismatch, "of a device with " + std::to_string(tree->data_size) + " bytes");
  }
  if (tree) return FoundTree{AnySource(**std::move(file)), *tree};
  log.say(Level::warning, "the Merkle tree in the store is not used: " + tree.error().message());
  return std::nullopt;
}

Result<void> append_tree(OpenedImage& opened, ImageOptions const& options, Log const& log) {
  if (options.verity == VerityUse::off) return {};
  if (!opened.tree) {
    auto const what = options.image + ": the store has no Merkle tree of this image";
    if (options.verity == VerityUse::require) {
      return fail(explain(Errc::not_found,
                          what + ", which oci.verity=require needs; `mount-oci index --verity " +
                              options.image + "` makes one"));
    }
    log.say(Level::info, what + ", so the kernel does not check it");
    return {};
  }
  auto const& root = opened.tree->tree.root;
  if (options.verity_root && *options.verity_root != root) {
    return fail(explain(Errc::mismatch, options.image + ": its Merkle tree has the root hash " +
                                            root.hex() + ", but oci.verity names " +
                                            options.verity_root->hex()));
  }
  auto& device = opened.device;
  using Whole = erofs_oci::Concat<AnySource, AnySource>;
  EROFS_OCI_TRY_ASSIGN(auto whole,
                       Whole::make(std::move(device.source), std::move(opened.tree->file)));
  device.source = AnySource(std::move(whole));
  device.zeros_from = device.source.size();
  return {};
}

std::optional<VerityTable> verity_table(erofs_oci::RecordImage const& image, VerityUse use) {
  if (image.verity == Digest()) return std::nullopt;
  return VerityTable{image.verity, image.verity_data, use == VerityUse::require};
}

std::string root_text(erofs_oci::RecordImage const& image) {
  return image.verity == Digest() ? std::string() : image.verity.hex();
}

std::string verity_obstacle(MountWay way, erofs_oci::HostSupport const& host) {
  if (auto const problem = erofs_oci::verity_problem(); !problem.empty()) {
    return std::string(problem);
  }
  if (way != MountWay::netlink && way != MountWay::fuse_file) {
    return "it checks block devices that end by themselves, and " + std::string(name_of(way)) +
           " has none";
  }
  if (host.verity == erofs_oci::Presence::absent) return "no dm-verity in this kernel";
  if (way == MountWay::fuse_file && host.loop == erofs_oci::Presence::absent) {
    return "no loop devices in this kernel, which fuse-file needs for it";
  }
  return {};
}

Result<void> settle_verity(ImageOptions& options, MountWay way, Log const& log) {
  if (options.verity == VerityUse::off) return {};
  auto const why = verity_obstacle(way, erofs_oci::probe_host());
  if (why.empty()) return {};
  if (options.verity == VerityUse::require) {
    return fail(explain(Errc::unsupported,
                        options.image + ": oci.verity=require, but the kernel cannot check the " +
                            "image by dm-verity: " + why +
                            "; oci.verity=try mounts it all the same"));
  }
  log.say(Level::info, "not by dm-verity: " + why);
  options.verity = VerityUse::off;
  return {};
}

Result<void> check_verity(std::optional<VerityTable> const& table, ImageOptions const& options) {
  if (options.verity != VerityUse::require) return {};
  auto const right = table && (!options.verity_root || *options.verity_root == table->root);
  if (right) return {};
  return fail(Errc::mismatch,
              "the process that reads the image names another Merkle tree than "
              "oci.verity wants");
}

std::string table_text(std::optional<VerityTable> const& table) {
  if (!table) return {};
  return std::to_string(table->data_size) + (table->required ? " 1 " : " 0 ") +
         table->root.to_string();
}

Result<std::optional<VerityTable>> parse_table(std::string_view text) {
  if (text.empty()) return std::optional<VerityTable>();
  VerityTable table;
  auto const size = erofs_oci::take_number<std::uint64_t>(text);
  auto const good = size && *size != 0 && *size % erofs_oci::VerityShape::hash_block == 0 &&
                    (text.starts_with(" 0 ") || text.starts_with(" 1 "));
  if (!good) return fail(Errc::protocol, "a table for dm-verity");
  table.data_size = *size;
  table.required = text[1] == '1';
  EROFS_OCI_TRY_ASSIGN(table.root, Digest::parse(text.substr(3)));
  if (table.root.algorithm() != erofs_oci::DigestAlgorithm::sha256) {
    return fail(Errc::protocol, "a table for dm-verity");
  }
  return std::optional(table);
}

}  // namespace mount_oci
