// SPDX-License-Identifier: Apache-2.0
/// @file
/// The layout of a Tree in an image: the Writer's first half.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/write_options.hpp>
#include <erofs_oci/erofs/xattr.hpp>

namespace erofs_oci::erofs {

namespace detail {

/// The place of one node.
struct Slot {
  std::uint64_t position = 0;    // of the inode, bytes
  std::uint64_t size = 0;        // of the content, bytes
  std::uint64_t block = 0;       // first block outside the inode; 0 = none
  NodeId parent = root_id;       // of the first entry
  std::uint32_t links = 0;       // 0 = not part of the tree
  std::uint32_t xattr_size = 0;  // of the area, bytes
  DataLayout layout = DataLayout::plain;
  bool extended = false;
  std::uint8_t chunk_bits = 0;

  [[nodiscard]] std::uint64_t head_size() const noexcept {
    return (extended ? InodeRecord::extended_size : InodeRecord::compact_size) + xattr_size;
  }
  [[nodiscard]] std::uint64_t chunks() const noexcept {
    return layout == DataLayout::chunks ? ((size - 1) >> (9 + chunk_bits)) + 1 : 0;
  }
  [[nodiscard]] std::uint64_t tail() const noexcept {
    return layout == DataLayout::tail ? size % block_size : 0;
  }
  /// Blocks of a directory or link outside the inode.
  [[nodiscard]] std::uint64_t blocks() const noexcept {
    if (layout == DataLayout::chunks) return 0;
    return layout == DataLayout::tail ? size / block_size : (size + block_size - 1) / block_size;
  }
};

/// Blocks of a node's content that the image holds outside the inode.
[[nodiscard]] inline std::uint64_t outer_blocks(Node const& node, Slot const& slot) noexcept {
  auto const* const file = node.regular();
  return file != nullptr ? file->stored.size() / block_size : slot.blocks();
}

/// The places of the nodes of a tree.
struct Plan {
  std::vector<Slot> slots{};            // by NodeId
  std::vector<NodeId> order{};          // of the inodes
  std::int64_t epoch = 0;               // seconds
  std::uint64_t table_size = 0;         // of the device table, bytes
  std::uint64_t meta_block = 0;         // nids count from here
  std::uint64_t image_blocks = 0;       // length of the image
  std::vector<std::uint64_t> starts{};  // blocks: of each device in the flat space, and of its end
  std::vector<DroppedXattr> dropped{};  // the first 1000
  std::uint64_t dropped_count = 0;

  [[nodiscard]] std::uint64_t nid(NodeId id) const noexcept {
    return (slots[id].position - meta_block * block_size) / inode_unit;
  }
};

/// Checks a tree and places its nodes.
[[nodiscard]] Result<Plan> make_plan(Tree const& tree, std::span<Device const> devices,
                                     WriteOptions const& options);

/// Visits a directory's entries in their order, "." and ".." at their places.
void for_each_entry(Tree const& tree, std::span<Slot const> slots, NodeId id,
                    FunctionRef<void(std::string_view, NodeId)> visit);

/// A node's xattrs as stored, in order of their full names; those that cannot be stored go to
/// `drop`.
[[nodiscard]] std::vector<XattrView> stored_xattrs(Tree const& tree, WriteOptions const& options,
                                                   NodeId id,
                                                   FunctionRef<void(std::string_view)> drop);

}  // namespace detail
}  // namespace erofs_oci::erofs

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/erofs/detail/write_plan_body.hpp>
#endif
