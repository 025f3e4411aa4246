// SPDX-License-Identifier: Apache-2.0
/// @file
/// load_tree(): from an image back to a Tree, for merging stored indexes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/marks.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/erofs/write_options.hpp>
#include <erofs_oci/erofs/xattr.hpp>

namespace erofs_oci::erofs {

namespace detail {

[[nodiscard]] inline Kind kind_of(Inode const& inode) noexcept {
  switch (file_type(inode.mode())) {
    case FileType::directory: return Kind::directory;
    case FileType::symlink: return Kind::symlink;
    case FileType::char_device: return Kind::char_device;
    case FileType::block_device: return Kind::block_device;
    case FileType::fifo: return Kind::fifo;
    case FileType::socket: return Kind::socket;
    case FileType::regular:
    case FileType::unknown: break;
  }
  return Kind::regular;
}

/// What inodes may hold all together. In a sound image nothing overlaps but shared xattrs; without
/// a bound a small image could hold many inodes that each claim most of it.
class LoadBudget {
 public:
  explicit LoadBudget(std::uint64_t image_size) noexcept : left_(image_size + max_shared_xattrs) {}

  /// @error{Errc::corrupt, it is used up}
  [[nodiscard]] Result<void> take(std::uint64_t bytes) {
    if (bytes > left_) {
      return fail(Errc::corrupt,
                  "xattrs, links and chunk tables are larger than the image together");
    }
    left_ -= bytes;
    return {};
  }

 private:
  std::uint64_t left_;
};

/// A regular file's runs, as extents.
template <RandomAccessSource S>
[[nodiscard]] Result<void> load_extents(Reader<S> const& reader, Inode const& inode, Regular& file,
                                        LoadBudget& budget) {
  file.size = inode.size();
  if (inode.layout() == DataLayout::chunks && file.size > 0) {
    auto const table = chunk_table(reader.frame(), inode);
    if (!table) return fail(table.error(), Reader<S>::name_of(inode) + ": data");
    auto const bytes = table->count * inode.chunk_format().entry_size();
    if (auto const ok = budget.take(bytes); !ok) return ok;
  }
  return reader.runs(inode, 0, inode.size(), [&](Run const& run) -> Result<bool> {
    if (run.place) {
      file.extents.push_back({run.file_offset, run.length, run.place->device, run.place->offset});
    }
    return true;
  });
}

/// Turns one inode into a node without children.
template <RandomAccessSource S>
[[nodiscard]] Result<Node> load_node(Reader<S> const& reader, Inode const& inode, Marks marks,
                                     LoadBudget& budget) {
  auto node = make_node(kind_of(inode));
  node.permissions = inode.mode() & 07777;
  node.uid = inode.record.uid;
  node.gid = inode.record.gid;
  node.mtime = inode.mtime;
  std::vector<Xattr> hidden;
  Result<void> affordable;
  auto const listed = reader.visit_xattrs(inode, [&](XattrView const& view) {
    affordable = budget.take(view.rest.size() + view.value.size());
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
    if (auto const ok = budget.take(inode.size()); !ok) return tl::unexpected(ok.error());
    auto target = reader.read_link(inode);
    if (!target) return tl::unexpected(target.error());
    node.content = Symlink{*std::move(target)};
  }
  if (inode.is_device()) node.content = inode.device();
  take_marks(node, hidden, marks);
  auto* const file = node.regular();
  if (file == nullptr) return node;
  auto const mapped = load_extents(reader, inode, *file, budget);
  if (!mapped) return tl::unexpected(mapped.error());
  return node;
}

}  // namespace detail

/// Reads a whole image into a tree, hard links and all; any damage on the way is an error. So are
/// inodes that overlap, when they would take more memory than the image explains.
///
/// Extents name devices as the image does; data in the image itself is on device 0. The implied
/// mark is read if it is there, and what the Writer says of files that only look marked. A tree
/// that the Writer wrote with Addressing::device_table and the same `marks` comes back equal, but
/// that adjoining extents are joined and sizes below a block's end lose `clean_padding`.
/// @param marks  which overlay marks become whiteouts and opaque directories; drop = none, a device
///               0:0 is then a device, as it is where the Writer was given one
template <RandomAccessSource S>
[[nodiscard]] Result<Tree> load_tree(Reader<S> const& reader, Marks marks = Marks::drop) {
  Tree tree;
  std::unordered_map<std::uint64_t, NodeId> by_nid;
  std::vector<NodeId> way;  // directories from the root to where the walk is
  detail::LoadBudget budget(reader.frame().image_size());
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
    auto node = detail::load_node(reader, *at.inode, marks, budget);
    if (!node) return fail(node.error(), at.path);
    auto id = root_id;
    if (at.depth == 0) {
      tree.root() = *std::move(node);
    } else {
      id = tree.add(way.back(), name, *std::move(node));
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
