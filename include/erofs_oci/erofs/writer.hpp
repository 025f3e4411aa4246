// SPDX-License-Identifier: Apache-2.0
/// @file
/// Writer: from a Tree to a metadata image, the same bytes every time.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/directory.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/write_options.hpp>
#include <erofs_oci/erofs/write_plan.hpp>
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

/// Gathers bytes in order and hands them on in pieces of a multiple of 512.
class Output {
 public:
  /// @param sink  borrowed: what it refers to outlives this object, so it is never a temporary
  explicit Output(ByteSink sink) : sink_(sink) { buffer_.reserve(capacity); }

  [[nodiscard]] std::uint64_t position() const noexcept { return flushed_ + buffer_.size(); }

  /// Whether the sink wants no more.
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

}  // namespace detail

/// Writes the metadata image of a tree: directories, inodes, links, xattrs, and where on which
/// device the data of files are. The data stay where they are.
///
/// The same tree, devices and options give the same bytes, on any machine and compiler: no clock,
/// no random numbers, no order of insertion. The epoch is the most common mtime; the uuid is made
/// from the image. All images have blocks of 512 bytes and a superblock checksum.
///
/// @par Memory
/// About 45 bytes a node beside the tree, and the largest directory. Nothing of the image is kept.
///
/// @par Thread safety
/// All const members, from any thread, while nobody changes the tree.
class Writer {
 public:
  /// Checks the tree and plans the image; writes nothing.
  /// @param tree     outlives the writer, unchanged
  /// @param devices  what the extents of files name: 1 is the first
  /// @error{Errc::invalid_argument, a name\, link target\, xattr\, extent\, mode or time that
  /// cannot be stored\, a directory with two parents; the text gives the path}
  /// @error{Errc::unsupported, image and data reach 2 TiB\, data that do not start on a block of
  /// 512 bytes\, too many chunks}
  [[nodiscard]] static Result<Writer> make(Tree const& tree, std::vector<Device> devices,
                                           WriteOptions options = {}) {
    // On the heap: the plan refers to both, and the writer may move.
    auto input = std::make_unique<Input>(Input{&tree, std::move(devices), std::move(options)});
    auto plan = detail::Plan::make(tree, input->devices, input->options);
    if (!plan) return fail(plan.error(), "erofs image");
    Writer writer(std::move(input), *std::move(plan));
    writer.make_head();
    return writer;
  }

  /// Length of the image in bytes: a multiple of the alignment.
  [[nodiscard]] std::uint64_t size() const noexcept { return plan_.image_blocks() * block_size; }

  /// Length of image and devices one after another, in bytes. Device i starts at flat_offset(i).
  [[nodiscard]] std::uint64_t flat_size() const noexcept {
    return plan_.starts().back() * block_size;
  }

  /// Where device `i`, counted from 0, starts in the flat space, in bytes.
  [[nodiscard]] std::uint64_t flat_offset(std::size_t i) const noexcept {
    return plan_.starts()[i] * block_size;
  }

  /// Inodes in the image.
  [[nodiscard]] std::uint64_t inodes() const noexcept { return plan_.order().size(); }

  /// The first 1000 xattrs left out because their namespace cannot be stored.
  [[nodiscard]] std::vector<DroppedXattr> const& dropped_xattrs() const noexcept {
    return plan_.dropped();
  }

  /// How many were left out.
  [[nodiscard]] std::uint64_t dropped_xattr_count() const noexcept { return plan_.dropped_count(); }

  /// Hands out the image in order, in pieces of 64 KiB.
  /// @error{Errc::stopping, the sink ended the stream}
  [[nodiscard]] Result<void> write(ByteSink sink) const {
    bool first = true;
    Bytes patched;
    auto const patch = [&](std::span<std::byte const> bytes) {
      if (!std::exchange(first, false)) return sink(bytes);
      patched = erofs_oci::to_bytes(bytes);
      std::ranges::copy(head_, patched.begin());
      return sink(patched);
    };
    detail::Output output(patch);
    emit(output);
    if (output.stopped()) return fail(Errc::stopping, "erofs image: the sink ended the stream");
    return {};
  }

  /// The whole image.
  [[nodiscard]] Bytes to_bytes() const {
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

 private:
  struct Input {
    Tree const* tree;
    std::vector<Device> devices;
    WriteOptions options;
  };

  static constexpr std::size_t head_size =
      superblock_offset + block_size;  // what the checksum covers

  Writer(std::unique_ptr<Input> input, detail::Plan plan) noexcept
      : input_(std::move(input)), plan_(std::move(plan)) {}

  // One pass over the image for the uuid; its beginning is kept, for the checksum.
  void make_head() {
    detail::Fingerprint fingerprint;
    auto const& uuid = input_->options.uuid;
    auto const look = [&](std::span<std::byte const> bytes) {
      if (head_.empty()) head_ = erofs_oci::to_bytes(bytes.first(head_size));
      fingerprint.add(bytes);
      return !uuid.has_value();
    };
    detail::Output output(look);
    emit(output);
    auto const block = std::span(head_).subspan<superblock_offset, block_size>();
    std::ranges::copy(uuid ? *uuid : fingerprint.uuid(), block.subspan<48, 16>().begin());
    store_le(crc32c(block), block.subspan<4, 4>());
  }

  void emit(detail::Output& output) const {
    emit_superblock(output);
    emit_device_table(output);
    std::uint32_t number = 0;
    for (auto const id : plan_.order()) {
      if (output.stopped()) return;
      emit_inode(output, id, ++number);
    }
    for (auto const id : plan_.order()) {
      if (output.stopped()) return;
      auto const& slot = plan_.slot(id);
      if (slot.blocks() == 0) continue;
      output.pad_to(slot.block * block_size);
      auto const bytes = content(id);
      output.put(std::span(bytes).first(
          static_cast<std::size_t>(std::min(slot.blocks() * block_size, slot.size))));
    }
    output.pad_to(size());
    output.flush();
  }

  void emit_superblock(detail::Output& output) const {
    Superblock s;
    s.feature_compat = compat::checksum | compat::mtime;
    s.root_nid = static_cast<std::uint16_t>(plan_.nid(root_id));
    s.inodes = inodes();
    s.epoch = plan_.epoch();
    // Without a table, the data behind the image are part of the one device there is.
    auto const table = input_->options.addressing == Addressing::device_table;
    s.blocks_low = static_cast<std::uint32_t>(table ? plan_.image_blocks() : plan_.starts().back());
    s.meta_block = static_cast<std::uint32_t>(plan_.meta_block());
    std::ranges::copy(as_bytes(input_->options.volume_name), s.volume_name.begin());
    if (plan_.table_size() != 0) {
      s.feature_incompat = incompat::device_table;
      s.extra_devices = static_cast<std::uint16_t>(input_->devices.size());
      s.device_table_slot =
          (superblock_offset + Superblock::on_disk_size) / DeviceSlot::on_disk_size;
    }
    std::array<std::byte, Superblock::on_disk_size> raw{};
    s.encode(raw);
    output.pad_to(superblock_offset);
    output.put(raw);
  }

  void emit_device_table(detail::Output& output) const {
    if (plan_.table_size() == 0) return;
    for (std::size_t i = 0; i < input_->devices.size(); ++i) {
      auto const& device = input_->devices[i];
      DeviceSlot slot;
      std::ranges::copy(as_bytes(device.tag), slot.tag.begin());
      slot.blocks_low = static_cast<std::uint32_t>(device.blocks);
      slot.first_block_low = static_cast<std::uint32_t>(plan_.starts()[i]);
      std::array<std::byte, DeviceSlot::on_disk_size> raw{};
      slot.encode(raw);
      output.put(raw);
    }
  }

  void emit_inode(detail::Output& output, NodeId id, std::uint32_t number) const {
    auto const& slot = plan_.slot(id);
    output.pad_to(slot.position);
    auto const r = record(id, number);
    std::array<std::byte, InodeRecord::extended_size> raw{};
    r.encode(std::span(raw).first(r.record_size()));
    output.put(std::span(raw).first(r.record_size()));
    if (slot.xattr_size != 0) emit_xattrs(output, id);
    if (slot.layout == DataLayout::chunks) {
      output.pad_to((output.position() + 7) / 8 * 8);
      emit_chunks(output, *(*input_->tree)[id].regular(), slot);
    } else if (slot.tail() != 0) {
      auto const bytes = content(id);
      output.put(std::span(bytes).last(static_cast<std::size_t>(slot.tail())));
    }
  }

  [[nodiscard]] InodeRecord record(NodeId id, std::uint32_t number) const {
    auto const& node = (*input_->tree)[id];
    auto const& slot = plan_.slot(id);
    InodeRecord r;
    r.format = static_cast<std::uint16_t>((slot.extended ? 1u : 0u) |
                                          (static_cast<unsigned>(slot.layout) << 1));
    r.xattr_count = static_cast<std::uint16_t>(
        slot.xattr_size == 0 ? 0 : (slot.xattr_size - XattrHeader::on_disk_size) / 4 + 1);
    r.mode = static_cast<std::uint16_t>(detail::type_bits(node.kind) | node.permissions);
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

  [[nodiscard]] static std::uint32_t start(Node const& node, detail::Slot const& slot) noexcept {
    if (slot.layout == DataLayout::chunks) return ChunkFormat::indexed_bit | slot.chunk_bits;
    if (slot.blocks() != 0) return static_cast<std::uint32_t>(slot.block);
    if (slot.layout == DataLayout::tail) return null_address;
    auto const* const number = node.device();
    if (number == nullptr) return 0;
    return (number->minor & 0xffu) | (number->major << 8) | ((number->minor & ~0xffu) << 12);
  }

  void emit_xattrs(detail::Output& output, NodeId id) const {
    std::array<std::byte, XattrHeader::on_disk_size> const header{};  // no filter, none shared
    output.put(header);
    for (auto const& xattr : plan_.stored_xattrs(id, [](std::string_view) {})) {
      XattrEntry const entry{static_cast<std::uint8_t>(xattr.rest.size()), xattr.prefix,
                             static_cast<std::uint16_t>(xattr.value.size())};
      std::array<std::byte, XattrEntry::on_disk_size> raw{};
      entry.encode(raw);
      output.put(raw);
      output.put(as_bytes(xattr.rest));
      output.put(xattr.value);
      output.pad_to((output.position() + 3) / 4 * 4);
    }
  }

  void emit_chunks(detail::Output& output, Regular const& file, detail::Slot const& slot) const {
    auto extent = file.extents.begin();
    auto const chunks = slot.chunks();
    for (std::uint64_t j = 0; j < chunks; ++j) {
      auto const at = j << (9 + slot.chunk_bits);
      while (extent != file.extents.end() && extent->file_offset + extent->length <= at) ++extent;
      ChunkIndex index;
      index.hole = extent == file.extents.end() || extent->file_offset > at;
      if (!index.hole) {
        index.address = (extent->device_offset + (at - extent->file_offset)) / block_size;
        if (plan_.table_size() != 0) {
          index.device = static_cast<std::uint16_t>(extent->device);
        } else {
          index.address += plan_.starts()[extent->device - 1];
        }
      }
      std::array<std::byte, ChunkIndex::on_disk_size> raw{};
      index.encode(raw);
      output.put(raw);
    }
  }

  /// The content of a directory or link.
  [[nodiscard]] Bytes content(NodeId id) const {
    auto const& node = (*input_->tree)[id];
    if (auto const* const link = node.symlink()) return erofs_oci::to_bytes(link->target);
    Bytes bytes;
    bytes.reserve(static_cast<std::size_t>(plan_.slot(id).size));
    std::vector<std::pair<std::string_view, NodeId>> block;
    std::size_t used = 0;
    plan_.for_each_entry(id, [&](std::string_view name, NodeId child) {
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
      std::array<std::byte, Dirent::on_disk_size> raw{};
      auto const type = file_type(detail::type_bits((*input_->tree)[id].kind));
      Dirent{plan_.nid(id), static_cast<std::uint16_t>(name_at), type}.encode(raw);
      bytes.insert(bytes.end(), raw.begin(), raw.end());
      name_at += name.size();
    }
    for (auto const& [name, id] : entries) {
      auto const text = as_bytes(name);
      bytes.insert(bytes.end(), text.begin(), text.end());
    }
  }

  std::unique_ptr<Input> input_;
  detail::Plan plan_;
  Bytes head_;  // the image's first bytes, with uuid and checksum
};

}  // namespace erofs_oci::erofs
