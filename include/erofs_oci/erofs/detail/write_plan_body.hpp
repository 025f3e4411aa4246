// SPDX-License-Identifier: Apache-2.0
/// @file
/// What erofs/write_plan.hpp only declares.
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

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/directory.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/marks.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/tree_rules.hpp>
#include <erofs_oci/erofs/write_options.hpp>
#include <erofs_oci/erofs/write_plan.hpp>
#include <erofs_oci/erofs/xattr.hpp>

namespace erofs_oci::erofs {
namespace detail {

EROFS_OCI_BODY void for_each_entry(Tree const& tree, std::span<Slot const> slots, NodeId id,
                                   FunctionRef<void(std::string_view, NodeId)> visit) {
  constexpr std::array<std::string_view, 2> dots{".", ".."};
  std::size_t dot = 0;
  auto const put_dots = [&](std::string_view before) {
    for (; dot < dots.size() && (before.empty() || dots[dot] < before); ++dot) {
      visit(dots[dot], dot == 0 ? id : slots[id].parent);
    }
  };
  for (auto const& [name, child] : tree[id].directory()->children) {
    if (slots[child].links == 0) continue;  // a whiteout that is left out
    put_dots(name);
    visit(name, child);
  }
  put_dots({});
}

EROFS_OCI_BODY std::vector<XattrView> stored_xattrs(Tree const& tree, WriteOptions const& options,
                                                    NodeId id,
                                                    FunctionRef<void(std::string_view)> drop) {
  auto const& node = tree[id];
  auto const* const directory = node.directory();
  auto const marked = directory != nullptr && options.marks != Marks::drop;
  auto const keep_implied =
      directory != nullptr && directory->implied && options.implied == Implied::keep;
  auto const own_device = options.marks != Marks::drop && looks_like_whiteout(node);
  if (node.xattrs.empty() && !marked && !keep_implied && !own_device) return {};

  std::map<std::string_view, std::span<std::byte const>> all;
  for (auto const& xattr : node.xattrs) all.emplace(xattr.name, xattr.value);
  std::vector<XattrView> list;
  if (keep_implied) list.push_back({internal_prefix, implied_mark, {}});
  if (own_device) list.push_back({internal_prefix, own_device_mark, {}});
  if (marked) {
    auto const has_whiteouts = std::ranges::any_of(directory->children, [&](auto const& child) {
      return tree[child.second].kind == Kind::whiteout;
    });
    put_mark(opaque_mark(options.marks), directory->opaque, all, list);
    put_mark(origin_mark(options.marks), has_whiteouts, all, list);
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
    // An end inside a block is the file's.
    file_end =
        std::min(round_to_block(extent.file_offset + extent.length), round_to_block(file.size));
    device_end = {extent.device, extent.device_offset + (file_end - extent.file_offset)};
  }
  if (file_end < file.size) borders |= file_end / block_size;
  if (borders != 0) bits = std::min(bits, static_cast<unsigned>(std::countr_zero(borders)));
  return static_cast<std::uint8_t>(std::min(bits, 31u));
}

/// Makes a plan.
class Planner {
 public:
  Planner(Tree const& tree, std::span<Device const> devices, WriteOptions const& options)
      : tree_(tree), devices_(devices), options_(options) {
    plan_.slots.resize(tree.size());
  }

  [[nodiscard]] Result<Plan> run() {
    EROFS_OCI_TRY(check_options());
    EROFS_OCI_TRY(collect());
    choose_epoch();
    EROFS_OCI_TRY(measure());
    place();
    EROFS_OCI_TRY(place_devices());
    return std::move(plan_);
  }

 private:
  [[nodiscard]] Result<void> check_options() const {
    if (options_.alignment == 0 || options_.alignment % block_size != 0 ||
        options_.alignment > (1u << 30)) {
      return fail(Errc::invalid_argument, "image alignment " + std::to_string(options_.alignment));
    }
    if (options_.volume_name.size() > 15) {
      return fail(Errc::invalid_argument, "volume name longer than 15 bytes");
    }
    if (devices_.size() > 65535) return fail(Errc::unsupported, "more than 65535 devices");
    for (auto const& device : devices_) {
      if (device.tag.size() > 64) return fail(Errc::invalid_argument, "device tag " + device.tag);
    }
    return {};
  }

  /// For messages: the path by which a node was reached first.
  [[nodiscard]] std::string path(NodeId id) const {
    std::string text;
    while (id != root_id) {
      auto const parent = plan_.slots[id].parent;
      auto const& children = tree_[parent].directory()->children;
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
    if (tree_.root().directory() == nullptr) {
      return fail(Errc::invalid_argument, "root: no directory");
    }
    plan_.slots[root_id].links = 2;
    plan_.order.push_back(root_id);
    std::vector<NodeId> todo{root_id};
    while (!todo.empty()) {
      auto const id = todo.back();
      todo.pop_back();
      auto const first = todo.size();
      for (auto const& [name, child] : tree_[id].directory()->children) {
        EROFS_OCI_TRY(collect_entry(id, name, child, todo));
      }
      std::reverse(todo.begin() + static_cast<std::ptrdiff_t>(first), todo.end());
    }
    return {};
  }

  [[nodiscard]] Result<void> collect_entry(NodeId parent, std::string const& name, NodeId child,
                                           std::vector<NodeId>& todo) {
    auto const& node = tree_[child];
    if (!is_valid_name(name)) {
      return refuse(parent, "an entry's name is empty, too long, a dot, or holds NUL or /");
    }
    if (node.kind == Kind::whiteout && options_.marks == Marks::drop) return {};
    auto& slot = plan_.slots[child];
    if (node.kind == Kind::directory) {
      if (slot.links != 0) return refuse(parent, "'" + name + "' is a directory of two parents");
      if (node.directory() == nullptr) {
        return refuse(parent, "'" + name + "': kind and content differ");
      }
      slot.links = 2;
      plan_.slots[parent].links += 1;
      todo.push_back(child);
    } else if (++slot.links > 1) {
      return {};
    }
    slot.parent = parent;
    plan_.order.push_back(child);
    return {};
  }

  // The most common time without a fraction: inodes that have it can be compact.
  void choose_epoch() {
    std::map<std::int64_t, std::uint64_t> counts;
    for (auto const id : plan_.order) {
      auto const& time = tree_[id].mtime;
      if (time.nanoseconds == 0 && time.seconds >= 0) ++counts[time.seconds];
    }
    std::uint64_t most = 0;
    for (auto const& [seconds, count] : counts) {
      if (count > most) std::tie(plan_.epoch, most) = std::pair(seconds, count);
    }
  }

  [[nodiscard]] Result<void> measure() {
    std::uint64_t chunks = 0;
    for (auto const id : plan_.order) {
      auto const& node = tree_[id];
      auto& slot = plan_.slots[id];
      EROFS_OCI_TRY(check_node(node, devices_), path(id));
      if (node.kind == Kind::directory) slot.size = directory_size(id);
      if (auto const* const link = node.symlink()) slot.size = link->target.size();
      if (auto const* const file = node.regular(); file != nullptr && file->size != 0) {
        slot.size = file->size;
        slot.layout = DataLayout::chunks;
        slot.chunk_bits = chunk_bits(*file);
      }
      EROFS_OCI_TRY(measure_xattrs(id));
      slot.extended = slot.size > 0xFFFFFFFF || node.uid > 65535 || node.gid > 65535 ||
                      slot.links > 65535 || node.mtime != Time{plan_.epoch, 0};
      chunks += slot.chunks();
      if (slot.chunks() > options_.max_chunks || chunks > options_.max_chunks) {
        return fail(Errc::unsupported, path(id) + ": sparse files of more than " +
                                           std::to_string(options_.max_chunks) + " chunks");
      }
    }
    return {};
  }

  [[nodiscard]] std::uint64_t directory_size(NodeId id) const {
    std::uint64_t full = 0;
    std::uint64_t used = 0;
    for_each_entry(tree_, plan_.slots, id, [&](std::string_view name, NodeId) {
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
    auto const list = stored_xattrs(tree_, options_, id, [&](std::string_view name) {
      ++plan_.dropped_count;
      if (plan_.dropped.size() < 1000) plan_.dropped.push_back({path(id), std::string(name)});
    });
    std::size_t size = 0;
    for (auto const& xattr : list) {
      size += XattrEntry{static_cast<std::uint8_t>(xattr.rest.size()), xattr.prefix,
                         static_cast<std::uint16_t>(xattr.value.size())}
                  .padded_size();
    }
    if (size != 0) size += XattrHeader::on_disk_size;
    if (size > max_xattr_area) return refuse(id, "xattrs of more than 262148 bytes together");
    plan_.slots[id].xattr_size = static_cast<std::uint32_t>(size);
    return {};
  }

  void place() {
    if (options_.addressing == Addressing::device_table) {
      plan_.table_size = devices_.size() * DeviceSlot::on_disk_size;
    }
    auto at = superblock_offset + Superblock::on_disk_size + plan_.table_size;
    // The root's nid has 16 bits, 2 MiB: a large table moves the origin of nids.
    if (at > (1u << 20)) plan_.meta_block = at / block_size;
    for (auto const id : plan_.order) at = place_inode(plan_.slots[id], tree_[id].kind, at);
    auto block = round_to_block(at) / block_size;
    for (auto const id : plan_.order) {
      auto& slot = plan_.slots[id];
      auto const blocks = outer_blocks(tree_[id], slot);
      if (blocks == 0) continue;
      slot.block = block;
      block += blocks;
    }
    auto const unit = options_.alignment / block_size;
    plan_.image_blocks = (block + unit - 1) / unit * unit;
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
    auto end = plan_.image_blocks;
    for (auto const& device : devices_) {
      plan_.starts.push_back(end);
      if (end >= limit || device.blocks >= limit - end) {
        return fail(Errc::unsupported, "image and data of 2 TiB or more");
      }
      end += device.blocks;
    }
    if (end >= limit) return fail(Errc::unsupported, "image of 2 TiB or more");
    plan_.starts.push_back(end);
    return {};
  }

  Tree const& tree_;
  std::span<Device const> devices_;
  WriteOptions const& options_;
  Plan plan_;
};

EROFS_OCI_BODY Result<Plan> make_plan(Tree const& tree, std::span<Device const> devices,
                                      WriteOptions const& options) {
  return Planner(tree, devices, options).run();
}

}  // namespace detail
}  // namespace erofs_oci::erofs
