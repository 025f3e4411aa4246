// SPDX-License-Identifier: Apache-2.0
/// @file
/// What erofs/writer.hpp only declares.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/directory.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/write_options.hpp>
#include <erofs_oci/erofs/write_plan.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/erofs/xattr.hpp>

namespace erofs_oci::erofs {
namespace detail {

/// 128 bits that differ when the bytes differ, for a uuid. Not for security.
class Fingerprint {
 public:
  /// @param bytes  a multiple of 8, but for the last call
  void add(std::span<std::byte const> bytes) noexcept {
    for (; bytes.size() >= 8; bytes = bytes.subspan(8)) {
      auto const word = load_le<std::uint64_t>(bytes.first<8>());
      a_ = (a_ ^ word) * 0x9E3779B97F4A7C15u;
      a_ ^= a_ >> 29;
      b_ = (b_ + word) * 0xC2B2AE3D27D4EB4Fu;
      b_ ^= b_ >> 31;
    }
  }

  /// As a uuid of version 8 ("any content").
  [[nodiscard]] std::array<std::byte, 16> uuid() const noexcept {
    std::array<std::byte, 16> result{};
    store_le(a_, std::span(result).first<8>());
    store_le(b_, std::span(result).last<8>());
    result[6] = (result[6] & std::byte{0x0f}) | std::byte{0x80};
    result[8] = (result[8] & std::byte{0x3f}) | std::byte{0x80};
    return result;
  }

 private:
  std::uint64_t a_ = 0x27D4EB2F165667C5u;
  std::uint64_t b_ = 0x165667B19E3779F9u;
};

/// A record of fixed size, as stored.
template <class Record>
[[nodiscard]] std::array<std::byte, Record::on_disk_size> encoded(Record const& record) noexcept {
  std::array<std::byte, Record::on_disk_size> raw{};
  record.encode(raw);
  return raw;
}

/// Gathers bytes in order and hands them on in pieces of a multiple of 512.
class Output {
 public:
  /// @param sink  borrowed: what it refers to outlives this object, so it is never a temporary
  explicit Output(ByteSink sink) : sink_(sink) { buffer_.reserve(capacity); }

  [[nodiscard]] std::uint64_t position() const noexcept { return flushed_ + buffer_.size(); }

  /// Whether the sink has ended the stream.
  [[nodiscard]] bool stopped() const noexcept { return stopped_; }

  void put(std::span<std::byte const> bytes) {
    while (!bytes.empty()) {
      auto const n = std::min(bytes.size(), capacity - buffer_.size());
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
      bytes = bytes.subspan(n);
      if (buffer_.size() == capacity) flush();
    }
  }

  void pad_to(std::uint64_t position) {
    static constexpr std::array<std::byte, 4096> zeros{};
    while (this->position() < position) {
      put(std::span(zeros).first(static_cast<std::size_t>(
          std::min<std::uint64_t>(zeros.size(), position - this->position()))));
    }
  }

  void flush() {
    if (!buffer_.empty() && !stopped_) stopped_ = !sink_(buffer_);
    flushed_ += buffer_.size();
    buffer_.clear();
  }

 private:
  static constexpr std::size_t capacity = 64 * 1024;

  ByteSink sink_;
  Bytes buffer_;
  std::uint64_t flushed_ = 0;
  bool stopped_ = false;
};

/// One pass over the image, with neither uuid nor checksum.
class Emitter {
 public:
  Emitter(Tree const& tree, std::span<Device const> devices, WriteOptions const& options,
          Plan const& plan, ByteSink sink)
      : tree_(tree), devices_(devices), options_(options), plan_(plan), output_(sink) {}

  /// Yields whether the sink has taken all.
  [[nodiscard]] bool run() {
    put_superblock();
    if (plan_.table_size != 0) put_device_table();
    std::uint32_t number = 0;
    for (auto const id : plan_.order) {
      if (output_.stopped()) return false;
      put_inode(id, ++number);
    }
    for (auto const id : plan_.order) {
      if (output_.stopped()) return false;
      auto const& slot = plan_.slots[id];
      if (slot.block == 0) continue;
      output_.pad_to(slot.block * block_size);
      if (auto const* const file = tree_[id].regular()) {
        output_.put(file->stored);
        continue;
      }
      auto const bytes = content(id);
      output_.put(std::span(bytes).first(
          static_cast<std::size_t>(std::min(slot.blocks() * block_size, slot.size))));
    }
    output_.pad_to(plan_.image_blocks * block_size);
    output_.flush();
    return !output_.stopped();
  }

 private:
  void put_superblock() {
    Superblock s;
    s.feature_compat = compat::checksum | compat::mtime;
    s.root_nid = static_cast<std::uint16_t>(plan_.nid(root_id));
    s.inodes = plan_.order.size();
    s.epoch = plan_.epoch;
    // Without a table, the data behind the image are part of the one device there is.
    auto const table = options_.addressing == Addressing::device_table;
    s.blocks_low = static_cast<std::uint32_t>(table ? plan_.image_blocks : plan_.starts.back());
    s.meta_block = static_cast<std::uint32_t>(plan_.meta_block);
    std::ranges::copy(as_bytes(options_.volume_name), s.volume_name.begin());
    if (plan_.table_size != 0) {
      s.feature_incompat = incompat::device_table;
      s.extra_devices = static_cast<std::uint16_t>(devices_.size());
      s.device_table_slot =
          (superblock_offset + Superblock::on_disk_size) / DeviceSlot::on_disk_size;
    }
    output_.pad_to(superblock_offset);
    output_.put(encoded(s));
  }

  void put_device_table() {
    for (std::size_t i = 0; i < devices_.size(); ++i) {
      DeviceSlot slot;
      std::ranges::copy(as_bytes(devices_[i].tag), slot.tag.begin());
      slot.blocks_low = static_cast<std::uint32_t>(devices_[i].blocks);
      slot.first_block_low = static_cast<std::uint32_t>(plan_.starts[i]);
      output_.put(encoded(slot));
    }
  }

  void put_inode(NodeId id, std::uint32_t number) {
    auto const& slot = plan_.slots[id];
    output_.pad_to(slot.position);
    auto const r = record(tree_[id], slot, number);
    std::array<std::byte, InodeRecord::extended_size> raw{};
    r.encode(std::span(raw).first(r.record_size()));
    output_.put(std::span(raw).first(r.record_size()));
    if (slot.xattr_size != 0) put_xattrs(id);
    if (slot.layout == DataLayout::chunks) {
      output_.pad_to((output_.position() + 7) / 8 * 8);
      put_chunks(*tree_[id].regular(), slot);
    } else if (slot.tail() != 0) {
      auto const bytes = content(id);
      output_.put(std::span(bytes).last(static_cast<std::size_t>(slot.tail())));
    }
  }

  [[nodiscard]] static InodeRecord record(Node const& node, Slot const& slot,
                                          std::uint32_t number) noexcept {
    InodeRecord r;
    r.format = static_cast<std::uint16_t>((slot.extended ? 1u : 0u) |
                                          (static_cast<unsigned>(slot.layout) << 1));
    r.xattr_count = static_cast<std::uint16_t>(
        slot.xattr_size == 0 ? 0 : (slot.xattr_size - XattrHeader::on_disk_size) / 4 + 1);
    r.mode = static_cast<std::uint16_t>(type_bits(node.kind) | node.permissions);
    r.links = slot.links;
    r.size = slot.size;
    r.start = start(node, slot);
    r.number = number;
    r.uid = node.uid;
    r.gid = node.gid;
    r.seconds = slot.extended ? node.mtime.seconds : 0;
    r.nanoseconds = node.mtime.nanoseconds;
    return r;
  }

  [[nodiscard]] static std::uint32_t start(Node const& node, Slot const& slot) noexcept {
    if (slot.layout == DataLayout::chunks) return ChunkFormat::indexed_bit | slot.chunk_bits;
    if (slot.blocks() != 0) return static_cast<std::uint32_t>(slot.block);
    if (slot.layout == DataLayout::tail) return null_address;
    auto const* const number = node.device();
    if (number == nullptr) return 0;
    return (number->minor & 0xffu) | (number->major << 8) | ((number->minor & ~0xffu) << 12);
  }

  void put_xattrs(NodeId id) {
    output_.put(std::array<std::byte, XattrHeader::on_disk_size>{});  // no filter, none shared
    for (auto const& xattr : stored_xattrs(tree_, options_, id, [](std::string_view) {})) {
      output_.put(encoded(XattrEntry{static_cast<std::uint8_t>(xattr.rest.size()), xattr.prefix,
                                     static_cast<std::uint16_t>(xattr.value.size())}));
      output_.put(as_bytes(xattr.rest));
      output_.put(xattr.value);
      output_.pad_to((output_.position() + 3) / 4 * 4);
    }
  }

  void put_chunks(Regular const& file, Slot const& slot) {
    auto extent = file.extents.begin();
    auto const chunks = slot.chunks();
    for (std::uint64_t j = 0; j < chunks; ++j) {
      auto const at = j << (9 + slot.chunk_bits);
      while (extent != file.extents.end() && extent->file_offset + extent->length <= at) ++extent;
      ChunkIndex index;
      index.hole = extent == file.extents.end() || extent->file_offset > at;
      if (!index.hole) {
        index.address = (extent->device_offset + (at - extent->file_offset)) / block_size;
        if (extent->device == 0) {
          index.address += slot.block;
        } else if (plan_.table_size != 0) {
          index.device = static_cast<std::uint16_t>(extent->device);
        } else {
          index.address += plan_.starts[extent->device - 1];
        }
      }
      output_.put(encoded(index));
    }
  }

  /// The content of a directory or link.
  [[nodiscard]] Bytes content(NodeId id) const {
    if (auto const* const link = tree_[id].symlink()) return to_bytes(link->target);
    Bytes bytes;
    bytes.reserve(static_cast<std::size_t>(plan_.slots[id].size));
    std::vector<std::pair<std::string_view, NodeId>> block;
    std::size_t used = 0;
    for_each_entry(tree_, plan_.slots, id, [&](std::string_view name, NodeId child) {
      auto const need = Dirent::on_disk_size + name.size();
      if (used + need > block_size) {
        append_block(bytes, block);
        bytes.resize((bytes.size() + block_size - 1) / block_size * block_size);
        block.clear();
        used = 0;
      }
      block.emplace_back(name, child);
      used += need;
    });
    append_block(bytes, block);
    return bytes;
  }

  void append_block(Bytes& bytes,
                    std::span<std::pair<std::string_view, NodeId> const> entries) const {
    auto name_at = entries.size() * Dirent::on_disk_size;
    for (auto const& [name, id] : entries) {
      auto const type = file_type(type_bits(tree_[id].kind));
      auto const raw = encoded(Dirent{plan_.nid(id), static_cast<std::uint16_t>(name_at), type});
      bytes.insert(bytes.end(), raw.begin(), raw.end());
      name_at += name.size();
    }
    for (auto const& [name, id] : entries) {
      auto const text = as_bytes(name);
      bytes.insert(bytes.end(), text.begin(), text.end());
    }
  }

  Tree const& tree_;
  std::span<Device const> devices_;
  WriteOptions const& options_;
  Plan const& plan_;
  Output output_;
};

}  // namespace detail

EROFS_OCI_BODY Result<Writer> Writer::make(Tree const& tree, std::vector<Device> devices,
                                           WriteOptions options) {
  EROFS_OCI_TRY_ASSIGN(auto plan, detail::make_plan(tree, devices, options), "erofs image");
  Writer writer(tree, std::move(devices), std::move(options), std::move(plan));
  writer.make_head();
  return writer;
}

EROFS_OCI_BODY Result<void> Writer::write(ByteSink sink) const {
  bool first = true;
  Bytes patched;
  auto const patch = [&](std::span<std::byte const> bytes) {
    if (!std::exchange(first, false)) return sink(bytes);
    patched = erofs_oci::to_bytes(bytes);
    std::ranges::copy(head_, patched.begin());
    return sink(patched);
  };
  if (!emit(patch)) return fail(Errc::stopping, "erofs image: the sink ended the stream");
  return {};
}

EROFS_OCI_BODY Bytes Writer::to_bytes() const {
  Bytes image;
  image.reserve(static_cast<std::size_t>(size()));
  auto const ok = write([&](std::span<std::byte const> bytes) {
    image.insert(image.end(), bytes.begin(), bytes.end());
    return true;
  });
  assert(ok);  // this sink takes all
  static_cast<void>(ok);
  return image;
}

EROFS_OCI_BODY void Writer::make_head() {
  // What the checksum covers.
  constexpr auto head_size = std::size_t{superblock_offset + block_size};
  detail::Fingerprint fingerprint;
  auto const& uuid = options_.uuid;
  auto const look = [&](std::span<std::byte const> bytes) {
    if (head_.empty()) head_ = erofs_oci::to_bytes(bytes.first(head_size));
    fingerprint.add(bytes);
    return !uuid.has_value();
  };
  static_cast<void>(emit(look));  // with a uuid, the first piece is enough
  auto const block = std::span(head_).subspan<superblock_offset, block_size>();
  std::ranges::copy(uuid ? *uuid : fingerprint.uuid(), block.subspan<48, 16>().begin());
  store_le(crc32c(block), block.subspan<4, 4>());
}

EROFS_OCI_BODY bool Writer::emit(ByteSink sink) const {
  return detail::Emitter(*tree_, devices_, options_, plan_, sink).run();
}

}  // namespace erofs_oci::erofs
