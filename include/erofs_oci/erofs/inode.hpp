// SPDX-License-Identifier: Apache-2.0
/// @file
/// On-disk inodes, both forms, and the chunk tables of regular files. No I/O.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/tree.hpp>

namespace erofs_oci::erofs {

/// Where an inode's content lies.
enum class DataLayout : std::uint8_t {
  plain = 0,            ///< in contiguous blocks
  compressed_full = 1,  ///< not supported
  tail = 2,             ///< in contiguous blocks, the last part of a block after the inode
  compressed = 3,       ///< not supported
  chunks = 4,           ///< at the addresses in a table of chunks
};

/// st_mode's type bits.
namespace mode {
inline constexpr std::uint16_t type_mask = 0170000;
inline constexpr std::uint16_t fifo = 0010000;
inline constexpr std::uint16_t char_device = 0020000;
inline constexpr std::uint16_t directory = 0040000;
inline constexpr std::uint16_t block_device = 0060000;
inline constexpr std::uint16_t regular = 0100000;
inline constexpr std::uint16_t symlink = 0120000;
inline constexpr std::uint16_t socket = 0140000;
}  // namespace mode

/// One inode as stored: compact (32 bytes) or extended (64), little endian, at a multiple of 32.
///
/// Fields as half-open byte ranges, compact | extended. Ranges not named are zero.
/// @spec{spec/tarindex.md section 5}
struct InodeRecord {
  static constexpr std::size_t compact_size = 32;   ///< bytes
  static constexpr std::size_t extended_size = 64;  ///< bytes

  std::uint16_t format = 0;  ///< [0, 2)   | [0, 2)    see layout(), extended(), flag()
  std::uint16_t xattr_count =
      0;                     ///< [2, 4)   | [2, 4)    0 = no xattrs, else area = 12 + 4 * (n - 1)
  std::uint16_t mode = 0;    ///< [4, 6)   | [4, 6)    st_mode
  std::uint16_t high = 0;    ///< [6, 8) if flag() and no directory | [6, 8)  address bits 32-47
  std::uint32_t links = 0;   ///< [6, 8)   | [44, 48)
  std::uint64_t size = 0;    ///< [8, 12)  | [8, 16)
  std::uint32_t start = 0;   ///< [16, 20) | [16, 20)  i_u: first block, rdev or chunk format
  std::uint32_t number = 0;  ///< [20, 24) | [20, 24)  i_ino
  std::uint32_t uid = 0;     ///< [24, 26) | [24, 28)
  std::uint32_t gid = 0;     ///< [26, 28) | [28, 32)
  std::int64_t seconds = 0;  ///< [12, 16) after the epoch, unsigned | [32, 40) absolute
  std::uint32_t nanoseconds = 0;  ///< fixed by the superblock | [40, 44)

  /// Whether the 64-byte form is used.
  [[nodiscard]] constexpr bool extended() const noexcept { return (format & 1) != 0; }
  /// Bytes of the record itself.
  [[nodiscard]] constexpr std::size_t record_size() const noexcept {
    return extended() ? extended_size : compact_size;
  }
  /// The three layout bits: 0 to 4 are a DataLayout.
  [[nodiscard]] constexpr unsigned layout_bits() const noexcept { return (format >> 1) & 7u; }
  /// Bit 4: one link and high address bits (others), no "." entry (directories).
  [[nodiscard]] constexpr bool flag() const noexcept { return (format & 0x10) != 0; }
  /// Bits without a meaning.
  [[nodiscard]] constexpr bool reserved_bits() const noexcept { return (format & ~0x1F) != 0; }
  /// Bytes of the xattr area after the record. A count of 1 is refused by readers.
  [[nodiscard]] constexpr std::uint32_t xattr_size() const noexcept {
    return xattr_count == 0 ? 0 : 12 + 4 * (xattr_count - 1u);
  }

  /// Total, given as many bytes as the form in the first two says; a compact record's missing
  /// fields are zero.
  /// @param raw  at least 32 bytes, 64 for an extended record
  [[nodiscard]] static constexpr InodeRecord decode(std::span<std::byte const> raw) noexcept {
    InodeRecord r;
    fields(r, detail::FieldReader{raw});
    if (!r.extended() && r.flag() && (r.mode & mode::type_mask) != mode::directory) {
      r.high = static_cast<std::uint16_t>(std::exchange(r.links, 1u));
    }
    return r;
  }

  /// The inverse of decode() for records without flag(); compact fields are cut to their width.
  /// @param raw  record_size() bytes
  constexpr void encode(std::span<std::byte> raw) const noexcept {
    std::ranges::fill(raw, std::byte{0});
    fields(*this, detail::FieldWriter{raw});
  }

 private:
  template <class Self, class Field>
  static constexpr void fields(Self& r, Field const& field) noexcept {
    field(r.format, 0);  // first: it says which form the others have
    field(r.xattr_count, 2);
    field(r.mode, 4);
    field(r.start, 16);
    field(r.number, 20);
    if (r.extended()) {
      field(r.high, 6);
      field(r.size, 8);
      field(r.uid, 24);
      field(r.gid, 28);
      field(r.seconds, 32);
      field(r.nanoseconds, 40);
      field(r.links, 44);
    } else {
      field(r.links, 6, 2);
      field(r.size, 8, 4);
      field(r.seconds, 12, 4);
      field(r.uid, 24, 2);
      field(r.gid, 26, 2);
    }
  }
};

/// How a file's chunk table is coded: the low 16 bits of i_u.
struct ChunkFormat {
  std::uint16_t raw = 0;

  static constexpr std::uint16_t indexed_bit = 0x20;
  static constexpr std::uint16_t wide_bit = 0x40;

  /// log2 of the chunk size in blocks, 0 to 31.
  [[nodiscard]] constexpr unsigned bits() const noexcept { return raw & 0x1Fu; }
  /// Whether entries are 8-byte indexes rather than 4-byte addresses.
  [[nodiscard]] constexpr bool indexed() const noexcept { return (raw & indexed_bit) != 0; }
  /// Whether indexes hold 48-bit addresses.
  [[nodiscard]] constexpr bool wide() const noexcept { return (raw & wide_bit) != 0; }
  /// Bits without a meaning.
  [[nodiscard]] constexpr bool reserved_bits() const noexcept { return (raw & ~0x7F) != 0; }
  /// Bytes an entry; also the table's alignment.
  [[nodiscard]] constexpr std::size_t entry_size() const noexcept { return indexed() ? 8 : 4; }
};

/// Where one chunk lies: 8 bytes `[0, 2)` address bits 32-47, `[2, 4)` device, `[4, 8)` address
/// bits 0-31; or the 4-byte form, which is the last field alone.
/// @spec{spec/tarindex.md section 6.1}
struct ChunkIndex {
  static constexpr std::size_t on_disk_size = 8;  ///< bytes, of the long form

  std::uint64_t address = 0;  ///< in blocks of the device; see hole()
  std::uint16_t device = 0;   ///< 0 = primary, else slot + 1
  bool hole = false;          ///< all address bits of the form are ones

  /// Total.
  /// @param raw  format.entry_size() bytes
  [[nodiscard]] static constexpr ChunkIndex decode(std::span<std::byte const> raw,
                                                   ChunkFormat format) noexcept {
    ChunkIndex index;
    if (!format.indexed()) {
      index.address = load_le<std::uint32_t>(raw.first<4>());
      index.hole = index.address == null_address;
      return index;
    }
    auto const all = raw.first<8>();
    index.device = load_le<std::uint16_t>(all.subspan<2, 2>());
    index.address = load_le<std::uint32_t>(all.subspan<4, 4>());
    if (format.wide()) {
      index.address |= std::uint64_t{load_le<std::uint16_t>(all.subspan<0, 2>())} << 32;
      index.hole = index.address == null_address_48;
    } else {
      index.hole = index.address == null_address;
    }
    return index;
  }

  /// The long form with a 32-bit address; a hole has no device.
  constexpr void encode(std::span<std::byte, on_disk_size> raw) const noexcept {
    std::ranges::fill(raw, std::byte{0});
    store_le(hole ? std::uint16_t{0} : device, raw.subspan<2, 2>());
    store_le(hole ? null_address : static_cast<std::uint32_t>(address), raw.subspan<4, 4>());
  }
};

/// One inode of an image, checked by Reader: everything that it needs lies inside the image.
struct Inode {
  std::uint64_t nid = 0;
  std::uint64_t position = 0;  ///< of the record, in bytes from the image's start
  InodeRecord record;
  Time mtime;  ///< absolute, whichever form the record has

  /// st_mode, type bits included.
  [[nodiscard]] std::uint16_t mode() const noexcept { return record.mode; }
  /// Bytes of content.
  [[nodiscard]] std::uint64_t size() const noexcept { return record.size; }
  [[nodiscard]] DataLayout layout() const noexcept {
    return static_cast<DataLayout>(record.layout_bits());
  }
  [[nodiscard]] bool is(std::uint16_t type) const noexcept {
    return (record.mode & mode::type_mask) == type;
  }
  [[nodiscard]] bool is_directory() const noexcept { return is(mode::directory); }
  [[nodiscard]] bool is_regular() const noexcept { return is(mode::regular); }
  [[nodiscard]] bool is_symlink() const noexcept { return is(mode::symlink); }
  [[nodiscard]] bool is_device() const noexcept {
    return is(mode::char_device) || is(mode::block_device);
  }
  /// Of a device file: Linux's 32-bit coding taken apart; else 0:0.
  [[nodiscard]] DeviceNumber device() const noexcept {
    if (!is_device()) return {};
    return {(record.start >> 8) & 0xfffu,
            (record.start & 0xffu) | ((record.start >> 12) & 0xfff00u)};
  }
  /// Whether overlayfs treats it as a whiteout.
  [[nodiscard]] bool is_whiteout() const noexcept {
    return is(mode::char_device) && record.start == 0;
  }

  /// Byte position of the xattr area.
  [[nodiscard]] std::uint64_t xattr_position() const noexcept {
    return position + record.record_size();
  }
  /// Byte position of what follows the xattr area: an inline tail, or padding and a chunk table.
  [[nodiscard]] std::uint64_t tail_position() const noexcept {
    return xattr_position() + record.xattr_size();
  }
  /// Bytes of the inline tail, in an image with blocks of `block` bytes.
  [[nodiscard]] std::uint64_t tail_size(std::uint64_t block) const noexcept {
    return layout() == DataLayout::tail ? size() % block : 0;
  }
  /// First block of the contiguous part (layouts plain and tail).
  [[nodiscard]] std::uint64_t first_block() const noexcept {
    return record.start | std::uint64_t{record.high} << 32;
  }
  /// Whether a plain file is one hole: the address bits that its form has are all ones.
  [[nodiscard]] bool is_hole() const noexcept {
    auto const wide = record.extended() || (record.flag() && !is_directory());
    return first_block() == (wide ? null_address_48 : null_address);
  }
  /// Of layout chunks.
  [[nodiscard]] ChunkFormat chunk_format() const noexcept {
    return {static_cast<std::uint16_t>(record.start)};
  }
};

}  // namespace erofs_oci::erofs
