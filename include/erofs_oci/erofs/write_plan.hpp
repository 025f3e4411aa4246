// SPDX-License-Identifier: Apache-2.0
/// @file
/// Where everything of a Tree goes in an image: the Writer's first half.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/directory.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/marks.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/tree_rules.hpp>
#include <erofs_oci/erofs/write_options.hpp>
#include <erofs_oci/erofs/xattr.hpp>

namespace erofs_oci::erofs {

namespace detail {

/// Where one node goes.
struct Slot {
  std::uint64_t position = 0;    // of the inode, bytes
  std::uint64_t size = 0;        // of the content, bytes
  std::uint64_t block = 0;       // first full block of a directory or link; 0 = none
  NodeId parent = root_id;       // whose entry was seen first
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
  /// Blocks outside the inode.
  [[nodiscard]] std::uint64_t blocks() const noexcept {
    if (layout == DataLayout::chunks) return 0;
    return layout == DataLayout::tail ? size / block_size : (size + block_size - 1) / block_size;
  }
};

inline constexpr std::array<std::string_view, 2> dots{".", ".."};

/// The chunk size of a file, as log2 of blocks: the largest whose borders no extent crosses, at
/// most what covers the file.
[[nodiscard]] inline std::uint8_t chunk_bits(Regular const& file) noexcept {
  auto const blocks = round_to_block(file.size) / block_size;
  auto bits = static_cast<unsigned>(std::bit_width(blocks - 1));
  std::uint64_t borders = 0;
  std::uint64_t file_end = 0;  // of the extents before, and where on their device that is
  auto device_end = std::pair(std::uint32_t{0}, std::uint64_t{0});
  for (auto const& extent : file.extents) {
    auto const device_start = std::pair(extent.device, extent.device_offset);
    auto const continues = extent.file_offset == file_end && device_start == device_end;
    if (!continues) borders |= (extent.file_offset | file_end) / block_size;
    // An end inside a block is followed by zeros, an end past the file by nothing.
    file_end =
        std::min(round_to_block(extent.file_offset + extent.length), round_to_block(file.size));
    device_end = {extent.device, extent.device_offset + (file_end - extent.file_offset)};
  }
  if (file_end < file.size) borders |= file_end / block_size;
  if (borders != 0) bits = std::min(bits, static_cast<unsigned>(std::countr_zero(borders)));
  return static_cast<std::uint8_t>(std::min(bits, 31u));
}

/// The mode bits of a kind. A whiteout is a character device.
[[nodiscard]] constexpr std::uint16_t type_bits(Kind kind) noexcept {
  switch (kind) {
    case Kind::regular: return mode::regular;
    case Kind::directory: return mode::directory;
    case Kind::symlink: return mode::symlink;
    case Kind::block_device: return mode::block_device;
    case Kind::fifo: return mode::fifo;
    case Kind::socket: return mode::socket;
    case Kind::char_device:
    case Kind::whiteout: break;
  }
  return mode::char_device;
}

/// The tree and the places of its nodes.
class Plan {
 public:
  /// Checks the tree and places it. `tree` and `devices` outlive the plan.
  [[nodiscard]] static Result<Plan> make(Tree const& tree, std::span<Device const> devices,
                                         WriteOptions const& options) {
    Plan plan(tree, devices, options);
    if (auto const ok = plan.check_options(); !ok) return tl::unexpected(ok.error());
    if (auto const ok = plan.collect(); !ok) return tl::unexpected(ok.error());
    plan.choose_epoch();
    if (auto const ok = plan.measure(); !ok) return tl::unexpected(ok.error());
    if (auto const ok = plan.place(); !ok) return tl::unexpected(ok.error());
    return plan;
  }

  [[nodiscard]] std::vector<NodeId> const& order() const noexcept { return order_; }
  [[nodiscard]] Slot const& slot(NodeId id) const noexcept { return slots_[id]; }
  [[nodiscard]] std::int64_t epoch() const noexcept { return epoch_; }
  [[nodiscard]] std::uint64_t image_blocks() const noexcept { return image_blocks_; }
  [[nodiscard]] std::uint64_t meta_block() const noexcept { return meta_block_; }
  [[nodiscard]] std::uint64_t table_size() const noexcept {
    auto const table = options_->addressing == Addressing::device_table;
    return table ? devices_.size() * DeviceSlot::on_disk_size : 0;
  }
  /// Where each device starts in the flat space, in blocks; one more for its end.
  [[nodiscard]] std::vector<std::uint64_t> const& starts() const noexcept { return starts_; }
  [[nodiscard]] std::vector<DroppedXattr> const& dropped() const noexcept { return dropped_; }
  [[nodiscard]] std::uint64_t dropped_count() const noexcept { return dropped_count_; }
  [[nodiscard]] std::uint64_t nid(NodeId id) const noexcept {
    return (slots_[id].position - meta_block_ * block_size) / inode_unit;
  }

  /// Visits a directory's entries in their order, "." and ".." at their places.
  void for_each_entry(NodeId id, FunctionRef<void(std::string_view, NodeId)> visit) const {
    std::size_t dot = 0;
    auto const put_dots = [&](std::string_view before) {
      for (; dot < dots.size() && (before.empty() || dots[dot] < before); ++dot) {
        visit(dots[dot], dot == 0 ? id : slots_[id].parent);
      }
    };
    for (auto const& [name, child] : (*tree_)[id].directory()->children) {
      if (slots_[child].links == 0) continue;  // a whiteout that is left out
      put_dots(name);
      visit(name, child);
    }
    put_dots({});
  }

  /// A node's xattrs as stored, in order of their full names; those that cannot be stored go to
  /// `drop`.
  [[nodiscard]] std::vector<XattrView> stored_xattrs(
      NodeId id, FunctionRef<void(std::string_view)> drop) const {
    auto const& node = (*tree_)[id];
    auto const* const directory = node.directory();
    auto const marked = directory != nullptr && options_->marks != Marks::drop;
    auto const keep_implied =
        directory != nullptr && directory->implied && options_->implied == Implied::keep;
    auto const own_device = options_->marks != Marks::drop && looks_like_whiteout(node);
    if (node.xattrs.empty() && !marked && !keep_implied && !own_device) return {};

    std::map<std::string_view, std::span<std::byte const>> all;
    for (auto const& xattr : node.xattrs) all.emplace(xattr.name, xattr.value);
    std::vector<XattrView> list;
    if (keep_implied) list.push_back({internal_prefix, implied_mark, {}});
    if (own_device) list.push_back({internal_prefix, own_device_mark, {}});
    if (marked) {
      put_mark(opaque_mark(options_->marks), directory->opaque, all, list);
      put_mark(origin_mark(options_->marks), has_whiteouts(*directory), all, list);
    }
    for (auto const& [name, value] : all) {
      if (auto const stored = split_name(name)) {
        list.push_back({stored->prefix, stored->rest, value});
      } else {
        drop(name);
      }
    }
    return list;
  }

 private:
  Plan(Tree const& tree, std::span<Device const> devices, WriteOptions const& options)
      : tree_(&tree), devices_(devices), options_(&options), slots_(tree.size()) {}

  [[nodiscard]] Result<void> check_options() const {
    if (options_->alignment == 0 || options_->alignment % block_size != 0 ||
        options_->alignment > (1u << 30)) {
      return fail(Errc::invalid_argument, "image alignment " + std::to_string(options_->alignment));
    }
    if (options_->volume_name.size() > 15) {
      return fail(Errc::invalid_argument, "volume name longer than 15 bytes");
    }
    if (devices_.size() > 65535) return fail(Errc::unsupported, "more than 65535 devices");
    for (auto const& device : devices_) {
      if (device.tag.size() > 64) return fail(Errc::invalid_argument, "device tag " + device.tag);
    }
    return {};
  }

  [[nodiscard]] bool has_whiteouts(Directory const& directory) const {
    return std::ranges::any_of(directory.children, [&](auto const& child) {
      return (*tree_)[child.second].kind == Kind::whiteout;
    });
  }

  /// For messages: the path by which a node was reached first.
  [[nodiscard]] std::string path(NodeId id) const {
    std::string text;
    while (id != root_id) {
      auto const parent = slots_[id].parent;
      auto const& children = (*tree_)[parent].directory()->children;
      auto const entry = std::ranges::find(children, id, &Children::value_type::second);
      text.insert(0, "/" + (entry == children.end() ? std::string("?") : entry->first));
      id = parent;
    }
    return text.empty() ? "/" : text;
  }

  [[nodiscard]] tl::unexpected<Error> refuse(NodeId id, std::string const& why) const {
    return fail(Errc::invalid_argument, path(id) + ": " + why);
  }

  // Order: a directory's children together, then the contents of each subdirectory.
  [[nodiscard]] Result<void> collect() {
    if (tree_->root().directory() == nullptr)
      return fail(Errc::invalid_argument, "root: no directory");
    slots_[root_id].links = 2;
    order_.push_back(root_id);
    std::vector<NodeId> todo{root_id};
    while (!todo.empty()) {
      auto const id = todo.back();
      todo.pop_back();
      auto const first = todo.size();
      for (auto const& [name, child] : (*tree_)[id].directory()->children) {
        if (auto const ok = collect_entry(id, name, child, todo); !ok) return ok;
      }
      std::reverse(todo.begin() + static_cast<std::ptrdiff_t>(first), todo.end());
    }
    return {};
  }

  [[nodiscard]] Result<void> collect_entry(NodeId parent, std::string const& name, NodeId child,
                                           std::vector<NodeId>& todo) {
    auto const& node = (*tree_)[child];
    if (!is_valid_name(name)) {
      return refuse(parent, "an entry's name is empty, too long, a dot, or holds NUL or /");
    }
    if (node.kind == Kind::whiteout && options_->marks == Marks::drop) return {};
    auto& slot = slots_[child];
    if (node.kind == Kind::directory) {
      if (slot.links != 0) return refuse(parent, "'" + name + "' is a directory of two parents");
      if (node.directory() == nullptr)
        return refuse(parent, "'" + name + "': kind and content differ");
      slot.links = 2;
      slots_[parent].links += 1;
      todo.push_back(child);
    } else if (++slot.links > 1) {
      return {};
    }
    slot.parent = parent;
    order_.push_back(child);
    return {};
  }

  // The most common time without a fraction: inodes that have it can be compact.
  void choose_epoch() {
    std::map<std::int64_t, std::uint64_t> counts;
    for (auto const id : order_) {
      auto const& time = (*tree_)[id].mtime;
      if (time.nanoseconds == 0 && time.seconds >= 0) ++counts[time.seconds];
    }
    std::uint64_t most = 0;
    for (auto const& [seconds, count] : counts) {
      if (count > most) std::tie(epoch_, most) = std::pair(seconds, count);
    }
  }

  [[nodiscard]] Result<void> measure() {
    std::uint64_t chunks = 0;
    for (auto const id : order_) {
      auto const& node = (*tree_)[id];
      auto& slot = slots_[id];
      if (auto const ok = measure_content(id); !ok) return ok;
      if (auto const ok = measure_xattrs(id); !ok) return ok;
      slot.extended = slot.size > 0xFFFFFFFF || node.uid > 65535 || node.gid > 65535 ||
                      slot.links > 65535 || node.mtime != Time{epoch_, 0};
      chunks += slot.chunks();
      if (slot.chunks() > options_->max_chunks || chunks > options_->max_chunks) {
        return fail(Errc::unsupported, path(id) + ": sparse files of more than " +
                                           std::to_string(options_->max_chunks) + " chunks");
      }
    }
    return {};
  }

  [[nodiscard]] Result<void> measure_content(NodeId id) {
    auto const& node = (*tree_)[id];
    auto& slot = slots_[id];
    if (auto const ok = check_node(node, devices_); !ok) return fail(ok.error(), path(id));
    if (node.kind == Kind::directory) slot.size = directory_size(id);
    if (auto const* const link = node.symlink()) slot.size = link->target.size();
    auto const* const file = node.regular();
    if (file == nullptr || file->size == 0) return {};
    slot.size = file->size;
    slot.layout = DataLayout::chunks;
    slot.chunk_bits = chunk_bits(*file);
    return {};
  }

  [[nodiscard]] std::uint64_t directory_size(NodeId id) const {
    std::uint64_t full = 0;
    std::uint64_t used = 0;
    for_each_entry(id, [&](std::string_view name, NodeId) {
      auto const need = Dirent::on_disk_size + name.size();
      if (used + need > block_size) {
        full += block_size;
        used = 0;
      }
      used += need;
    });
    return full + used;
  }

  [[nodiscard]] Result<void> measure_xattrs(NodeId id) {
    auto const list = stored_xattrs(id, [&](std::string_view name) {
      ++dropped_count_;
      if (dropped_.size() < 1000) dropped_.push_back({path(id), std::string(name)});
    });
    std::size_t size = 0;
    for (auto const& xattr : list) {
      size += XattrEntry{static_cast<std::uint8_t>(xattr.rest.size()), xattr.prefix,
                         static_cast<std::uint16_t>(xattr.value.size())}
                  .padded_size();
    }
    if (size != 0) size += XattrHeader::on_disk_size;
    if (size > max_xattr_area) return refuse(id, "xattrs of more than 262148 bytes together");
    slots_[id].xattr_size = static_cast<std::uint32_t>(size);
    return {};
  }

  [[nodiscard]] Result<void> place() {
    auto at = superblock_offset + Superblock::on_disk_size + table_size();
    // The root's nid has 16 bits, 2 MiB: a large table moves the origin of nids.
    if (at > (1u << 20)) meta_block_ = at / block_size;
    for (auto const id : order_) at = place_inode(slots_[id], (*tree_)[id].kind, at);
    auto block = round_to_block(at) / block_size;
    for (auto const id : order_) {
      auto& slot = slots_[id];
      if (slot.blocks() == 0) continue;
      slot.block = block;
      block += slot.blocks();
    }
    auto const unit = options_->alignment / block_size;
    image_blocks_ = (block + unit - 1) / unit * unit;
    return place_devices();
  }

  // An inline tail lies in the block of its inode's last byte; if no position does that, the
  // content goes to blocks of its own.
  [[nodiscard]] static std::uint64_t place_inode(Slot& slot, Kind kind, std::uint64_t at) {
    at = (at + inode_unit - 1) / inode_unit * inode_unit;
    auto const inlined = kind == Kind::directory || kind == Kind::symlink;
    if (inlined && slot.size % block_size != 0) {
      for (std::uint64_t skip = 0; skip < block_size; skip += inode_unit) {
        auto const last = (at + skip + slot.head_size() - 1) % block_size;
        if (last + slot.size % block_size > block_size - 1) continue;
        slot.layout = DataLayout::tail;
        at += skip;
        break;
      }
    }
    slot.position = at;
    at += slot.head_size();
    if (slot.layout == DataLayout::chunks) {
      auto const unit = ChunkIndex::on_disk_size;
      return (at + unit - 1) / unit * unit + slot.chunks() * unit;
    }
    return at + slot.tail();
  }

  [[nodiscard]] Result<void> place_devices() {
    constexpr std::uint64_t limit = null_address;  // the address of holes
    auto end = image_blocks_;
    for (auto const& device : devices_) {
      starts_.push_back(end);
      if (end >= limit || device.blocks >= limit - end) {
        return fail(Errc::unsupported, "image and data of 2 TiB or more");
      }
      end += device.blocks;
    }
    if (end >= limit) return fail(Errc::unsupported, "image of 2 TiB or more");
    starts_.push_back(end);
    return {};
  }

  Tree const* tree_;
  std::span<Device const> devices_;
  WriteOptions const* options_;
  std::vector<Slot> slots_;  // by NodeId
  std::vector<NodeId> order_;
  std::int64_t epoch_ = 0;
  std::uint64_t meta_block_ = 0;
  std::uint64_t image_blocks_ = 0;
  std::vector<std::uint64_t> starts_;
  std::vector<DroppedXattr> dropped_;
  std::uint64_t dropped_count_ = 0;
};

}  // namespace detail
}  // namespace erofs_oci::erofs
