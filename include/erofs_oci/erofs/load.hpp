// SPDX-License-Identifier: Apache-2.0
/// @file
/// load_tree(): turns an image back into a Tree, for merging stored indexes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/directory.hpp>
#include <erofs_oci/erofs/marks.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/tree_rules.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/erofs/write_options.hpp>
#include <erofs_oci/erofs/xattr.hpp>

namespace erofs_oci::erofs {

namespace detail {

/// Bounds what all inodes together may take. In a sound image only shared xattrs overlap; without a
/// bound, a small image could hold many inodes that each refer to most of it.
/// @param budget  what is left, in bytes
/// @error{Errc::corrupt, it is used up}
[[nodiscard]] inline Result<void> take(std::uint64_t& budget, std::uint64_t bytes) {
  if (bytes > budget) {
    return fail(Errc::corrupt,
                "xattrs, links, chunk tables and data are larger than the image together");
  }
  budget -= bytes;
  return {};
}

/// A regular file's runs, as extents.
template <RandomAccessSource S>
[[nodiscard]] Result<void> load_extents(Reader<S> const& reader, Inode const& inode, Regular& file,
                                        std::uint64_t& budget) {
  file.size = inode.size();
  if (inode.layout() == DataLayout::chunks && file.size > 0) {
    EROFS_OCI_TRY_ASSIGN(auto const table, chunk_table(reader.frame(), inode),
                         Reader<S>::name_of(inode) + ": data");
    EROFS_OCI_TRY(take(budget, table.count * inode.chunk_format().entry_size()));
  }
  auto const is_index = !reader.frame().slots().empty();
  return reader.runs(inode, 0, inode.size(), [&](Run const& run) -> Result<bool> {
    if (!run.place) return true;
    auto [device, offset] = *run.place;
    if (device == 0 && is_index) {
      EROFS_OCI_TRY(take(budget, run.length));
      offset = file.stored.size();
      file.stored.resize(static_cast<std::size_t>(offset + round_to_block(run.length)));
      auto const out = std::span(file.stored).subspan(static_cast<std::size_t>(offset));
      EROFS_OCI_TRY(
          reader.frame().read(run.place->offset, out.first(static_cast<std::size_t>(run.length))));
    }
    file.extents.push_back({run.file_offset, run.length, device, offset});
    return true;
  });
}

/// Turns one inode into a node without children.
template <RandomAccessSource S>
[[nodiscard]] Result<Node> load_node(Reader<S> const& reader, Inode const& inode, Marks marks,
                                     std::uint64_t& budget) {
  auto node = make_node(kind_of(inode.mode()));
  node.permissions = inode.mode() & 07777;
  node.uid = inode.record.uid;
  node.gid = inode.record.gid;
  node.mtime = inode.mtime;
  std::vector<Xattr> hidden;
  Result<void> affordable;
  auto const listed = reader.visit_xattrs(inode, [&](XattrView const& view) {
    affordable = take(budget, view.rest.size() + view.value.size());
    if (!affordable) return false;
    if (auto const prefix = reader.prefix_text(view.prefix)) {
      node.xattrs.push_back({*prefix + std::string(view.rest), to_bytes(view.value)});
    } else if (view.prefix == internal_prefix) {
      hidden.push_back({std::string(view.rest), to_bytes(view.value)});
    }
    return true;
  });
  if (!listed) return tl::unexpected(listed.error());
  if (!affordable) return tl::unexpected(affordable.error());
  if (auto* const directory = node.directory()) {
    directory->implied = std::ranges::find(hidden, implied_mark, &Xattr::name) != hidden.end();
  }
  if (inode.is_symlink()) {
    EROFS_OCI_TRY(take(budget, inode.size()));
    EROFS_OCI_TRY_ASSIGN(auto target, reader.read_link(inode));
    node.content = Symlink{std::move(target)};
  }
  if (inode.is_device()) node.content = inode.device();
  take_marks(node, hidden, marks);
  auto* const file = node.regular();
  if (file == nullptr) return node;
  EROFS_OCI_TRY(load_extents(reader, inode, *file, budget));
  return node;
}

}  // namespace detail

/// Reads a whole image into a tree, hard links and all; any damage on the way is an error. So are
/// inodes that overlap, when they would take more memory than the image explains.
///
/// Extents name devices as the image does. What an image with devices holds itself of a file comes
/// along in Regular::stored; in an image without, device 0 is the image, and nothing is stored. The
/// implied mark is read if it is there, and what the Writer says of files that only look marked. A
/// tree that the Writer wrote with Addressing::device_table and the same `marks` comes back equal,
/// but that adjoining extents are joined.
/// @param marks  which overlay marks become whiteouts and opaque directories; drop = none, a device
///               0:0 is then a device, as it is where the Writer was given one
/// @param most   most bytes of Tree::memory(). Default: any number
/// @error{Errc::unsupported, the tree takes more than `most`}
template <RandomAccessSource S>
[[nodiscard]] Result<Tree> load_tree(
    Reader<S> const& reader, Marks marks = Marks::drop,
    std::uint64_t most = std::numeric_limits<std::uint64_t>::max()) {
  Tree tree;
  std::unordered_map<std::uint64_t, NodeId> by_nid;
  std::vector<NodeId> way;  // directories from the root to the present one
  auto budget = reader.frame().image_size() + max_shared_xattrs;
  Result<void> result;
  auto const visit = [&](Visit const& at) -> Result<void> {
    if (at.error != nullptr) return fail(*at.error, at.path);
    way.resize(at.depth);
    auto const name = at.path.substr(at.path.rfind('/') + 1);
    auto const known = by_nid.find(at.nid);
    if (known != by_nid.end() && !at.inode->is_directory()) {
      tree.link(way.back(), name, known->second);
      return {};
    }
    EROFS_OCI_TRY_ASSIGN(auto node, detail::load_node(reader, *at.inode, marks, budget), at.path);
    auto id = root_id;
    if (at.depth == 0) {
      tree.root() = std::move(node);
    } else {
      id = tree.add(way.back(), name, std::move(node));
    }
    if (tree.memory() > most) {
      return fail(Errc::unsupported, "files that take more than " + std::to_string(most) +
                                         " bytes of memory" + ImageMemory::advice);
    }
    by_nid.emplace(at.nid, id);
    if (at.inode->is_directory()) way.push_back(id);
    return {};
  };
  auto const walked = walk(reader, [&](Visit const& at) {
    result = visit(at);
    return result ? Step::enter : Step::stop;
  });
  if (!walked) return tl::unexpected(walked.error());
  if (!result) return tl::unexpected(result.error());
  return tree;
}

}  // namespace erofs_oci::erofs
