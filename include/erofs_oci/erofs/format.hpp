// SPDX-License-Identifier: Apache-2.0
/// @file
/// The frame of an EROFS image: superblock, device table, feature bits, checksum. No I/O.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <erofs_oci/core/endian.hpp>

namespace erofs_oci::erofs {

inline constexpr std::uint32_t magic = 0xE0F5E1E2;        ///< of every superblock
inline constexpr std::uint64_t superblock_offset = 1024;  ///< bytes from the image's start
inline constexpr std::uint64_t block_size = 512;          ///< of the images that we write, in bytes
inline constexpr std::uint64_t page_size = 4096;  ///< the least that Linux reads of a device
inline constexpr std::uint64_t inode_unit = 32;   ///< bytes a nid
inline constexpr std::uint64_t metabox_bit = 1ull << 63;   ///< of a nid: lies in the metabox
inline constexpr std::uint64_t max_symlink_length = 4095;  ///< bytes of a target
inline constexpr std::size_t max_name_length = 255;        ///< bytes of a file name
inline constexpr std::uint32_t null_address = 0xFFFFFFFF;  ///< block address of a hole, 32-bit
inline constexpr std::uint64_t null_address_48 = (1ull << 48) - 1;  ///< and with 48-bit addresses

/// Features that a reader may ignore.
namespace compat {
inline constexpr std::uint32_t checksum = 0x1;               ///< the superblock's checksum is there
inline constexpr std::uint32_t mtime = 0x2;                  ///< times are mtimes
inline constexpr std::uint32_t plain_xattr_prefixes = 0x10;  ///< long prefixes in the image itself
}  // namespace compat

/// Features that a reader must know.
namespace incompat {
inline constexpr std::uint32_t lz4_padding = 0x1;
inline constexpr std::uint32_t compression_configs = 0x2;
inline constexpr std::uint32_t chunked = 0x4;
inline constexpr std::uint32_t device_table = 0x8;
inline constexpr std::uint32_t ztailpacking = 0x10;
inline constexpr std::uint32_t fragments = 0x20;
inline constexpr std::uint32_t xattr_prefixes = 0x40;
inline constexpr std::uint32_t wide_addresses = 0x80;  ///< 48-bit block addresses
/// What our reader opens. Compressed files in such an image are refused one by one.
inline constexpr std::uint32_t known = lz4_padding | compression_configs | chunked | device_table |
                                       ztailpacking | fragments | xattr_prefixes | wide_addresses;
}  // namespace incompat

namespace detail {

/// CRC-32C of each byte.
inline constexpr auto crc32c_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    auto value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82F63B78u : 0u);
    table[i] = value;
  }
  return table;
}();

/// Sets integers from little-endian bytes.
struct FieldReader {
  std::span<std::byte const> raw;

  /// @param width  bytes on disk; not more than the field has
  template <std::integral T>
  constexpr void operator()(T& field, std::size_t at,
                            std::size_t width = sizeof(T)) const noexcept {
    std::uint64_t value = 0;
    for (auto i = at + width; i-- > at;) value = value << 8 | std::to_integer<unsigned>(raw[i]);
    field = static_cast<T>(value);
  }
};

/// The inverse.
struct FieldWriter {
  std::span<std::byte> raw;

  template <std::integral T>
  constexpr void operator()(T field, std::size_t at, std::size_t width = sizeof(T)) const noexcept {
    for (std::size_t i = 0; i < width; ++i) raw[at + i] = static_cast<std::byte>(field >> (8 * i));
  }
};

}  // namespace detail

/// CRC-32C (Castagnoli), without a final inversion: the running state is the result.
[[nodiscard]] constexpr std::uint32_t crc32c(std::span<std::byte const> bytes,
                                             std::uint32_t state = 0xFFFFFFFF) noexcept {
  for (auto const byte : bytes) {
    state =
        (state >> 8) ^ detail::crc32c_table[(state ^ std::to_integer<std::uint32_t>(byte)) & 255];
  }
  return state;
}

/// The superblock: 128 bytes at byte 1024, little endian. Fields at ranges not named are zero.
/// @spec{spec/tarindex.md section 2; Linux fs/erofs/erofs_fs.h}
struct Superblock {
  static constexpr std::size_t on_disk_size = 128;  ///< bytes, without extension slots

  std::uint32_t magic = erofs::magic;       ///< [0, 4)
  std::uint32_t checksum = 0;               ///< [4, 8)      see checksum_length()
  std::uint32_t feature_compat = 0;         ///< [8, 12)
  std::uint8_t block_bits = 9;              ///< [12, 13)    log2 of the block size
  std::uint8_t extension_slots = 0;         ///< [13, 14)    of 16 bytes each, after these 128
  std::uint16_t root_nid = 0;               ///< [14, 16)    or bits 32-47 of `blocks`, see blocks()
  std::uint64_t inodes = 0;                 ///< [16, 24)
  std::int64_t epoch = 0;                   ///< [24, 32)    seconds since 1970
  std::uint32_t fixed_nsec = 0;             ///< [32, 36)    of compact inodes
  std::uint32_t blocks_low = 0;             ///< [36, 40)    length of the primary device, in blocks
  std::uint32_t meta_block = 0;             ///< [40, 44)    nids count from here
  std::uint32_t xattr_block = 0;            ///< [44, 48)    shared xattr ids count from here
  std::array<std::byte, 16> uuid{};         ///< [48, 64)
  std::array<std::byte, 16> volume_name{};  ///< [64, 80)    NUL padded
  std::uint32_t feature_incompat = 0;       ///< [80, 84)
  std::uint16_t algorithms = 0;             ///< [84, 86)    of compression
  std::uint16_t extra_devices = 0;          ///< [86, 88)    slots in the device table
  std::uint16_t device_table_slot = 0;      ///< [88, 90)    its byte offset / 128
  std::uint8_t dir_block_bits = 0;          ///< [90, 91)    0
  std::uint8_t xattr_prefix_count = 0;      ///< [91, 92)
  std::uint32_t xattr_prefix_start = 0;     ///< [92, 96)    byte offset / 4
  std::uint64_t packed_nid = 0;             ///< [96, 104)
  std::uint8_t xattr_filter_reserved = 0;   ///< [104, 105)  nonzero: ignore filters
  std::uint32_t build_time = 0;             ///< [108, 112)  seconds after epoch, for display
  std::uint64_t root_nid_wide = 0;          ///< [112, 120)  with 48-bit addresses only

  /// Total: every 128 bytes are some superblock. Reader checks its values.
  [[nodiscard]] static constexpr Superblock decode(
      std::span<std::byte const, on_disk_size> raw) noexcept {
    Superblock s;
    fields(s, detail::FieldReader{raw});
    std::ranges::copy(raw.subspan<48, 16>(), s.uuid.begin());
    std::ranges::copy(raw.subspan<64, 16>(), s.volume_name.begin());
    return s;
  }

  /// The inverse of decode(); unnamed ranges become zeros.
  constexpr void encode(std::span<std::byte, on_disk_size> raw) const noexcept {
    std::ranges::fill(raw, std::byte{0});
    fields(*this, detail::FieldWriter{raw});
    std::ranges::copy(uuid, raw.subspan<48, 16>().begin());
    std::ranges::copy(volume_name, raw.subspan<64, 16>().begin());
  }

  /// Whether an incompatible feature is set.
  [[nodiscard]] constexpr bool has(std::uint32_t incompatible) const noexcept {
    return (feature_incompat & incompatible) != 0;
  }

  /// Whether `root_nid` is the high part of the block count instead.
  [[nodiscard]] constexpr bool wide_root() const noexcept {
    return has(incompat::wide_addresses) && root_nid_wide != 0;
  }

  /// The root directory.
  [[nodiscard]] constexpr std::uint64_t root() const noexcept {
    return wide_root() ? root_nid_wide : root_nid;
  }

  /// Length of the primary device, in blocks.
  [[nodiscard]] constexpr std::uint64_t blocks() const noexcept {
    return blocks_low | (wide_root() ? std::uint64_t{root_nid} << 32 : 0);
  }

  /// How many bytes from byte 1024 the checksum covers, its own field taken as zero.
  [[nodiscard]] constexpr std::uint64_t checksum_length() const noexcept {
    auto const block = std::uint64_t{1} << block_bits;
    return block <= superblock_offset ? block : block - superblock_offset;
  }

 private:
  /// All but the texts.
  template <class Self, class Field>
  static constexpr void fields(Self& s, Field const& field) noexcept {
    field(s.magic, 0);
    field(s.checksum, 4);
    field(s.feature_compat, 8);
    field(s.block_bits, 12);
    field(s.extension_slots, 13);
    field(s.root_nid, 14);
    field(s.inodes, 16);
    field(s.epoch, 24);
    field(s.fixed_nsec, 32);
    field(s.blocks_low, 36);
    field(s.meta_block, 40);
    field(s.xattr_block, 44);
    field(s.feature_incompat, 80);
    field(s.algorithms, 84);
    field(s.extra_devices, 86);
    field(s.device_table_slot, 88);
    field(s.dir_block_bits, 90);
    field(s.xattr_prefix_count, 91);
    field(s.xattr_prefix_start, 92);
    field(s.packed_nid, 96);
    field(s.xattr_filter_reserved, 104);
    field(s.build_time, 108);
    field(s.root_nid_wide, 112);
  }
};

/// Which device a range of the flat space comes from.
///
/// On disk: 128 bytes, little endian; slot i is at byte (device_table_slot + i) * 128.
/// @spec{spec/tarindex.md section 3}
struct DeviceSlot {
  static constexpr std::size_t on_disk_size = 128;  ///< bytes

  std::array<std::byte, 64> tag{};     ///< [0, 64)   free text or hexadecimal digest, NUL padded
  std::uint32_t blocks_low = 0;        ///< [64, 68)  length of the device, in blocks
  std::uint32_t first_block_low = 0;   ///< [68, 72)  where the flat space has it; 0 = nowhere
  std::uint16_t blocks_high = 0;       ///< [72, 74)  with 48-bit addresses only
  std::uint16_t first_block_high = 0;  ///< [74, 76)  with 48-bit addresses only

  /// Total: every 128 bytes are some slot. Reader checks its values.
  [[nodiscard]] static constexpr DeviceSlot decode(
      std::span<std::byte const, on_disk_size> raw) noexcept {
    DeviceSlot slot;
    std::ranges::copy(raw.first<64>(), slot.tag.begin());
    slot.blocks_low = load_le<std::uint32_t>(raw.subspan<64, 4>());
    slot.first_block_low = load_le<std::uint32_t>(raw.subspan<68, 4>());
    slot.blocks_high = load_le<std::uint16_t>(raw.subspan<72, 2>());
    slot.first_block_high = load_le<std::uint16_t>(raw.subspan<74, 2>());
    return slot;
  }

  /// The inverse of decode(); unnamed ranges become zeros.
  constexpr void encode(std::span<std::byte, on_disk_size> raw) const noexcept {
    std::ranges::fill(raw, std::byte{0});
    std::ranges::copy(tag, raw.begin());
    store_le(blocks_low, raw.subspan<64, 4>());
    store_le(first_block_low, raw.subspan<68, 4>());
    store_le(blocks_high, raw.subspan<72, 2>());
    store_le(first_block_high, raw.subspan<74, 2>());
  }
};

}  // namespace erofs_oci::erofs
