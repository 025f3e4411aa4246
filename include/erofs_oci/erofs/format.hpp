// SPDX-License-Identifier: Apache-2.0
/// @file
/// The frame of an EROFS image: superblock, device table, feature bits, checksum. No I/O.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include <erofs_oci/core/endian.hpp>

namespace erofs_oci::erofs {

inline constexpr std::uint32_t magic = 0xE0F5E1E2;        ///< of every superblock
inline constexpr std::uint64_t superblock_offset = 1024;  ///< bytes from the image's start
inline constexpr std::uint64_t block_size = 512;          ///< of the images that we write, in bytes
inline constexpr std::uint64_t inode_unit = 32;           ///< bytes a nid
inline constexpr std::uint64_t metabox_bit = 1ull << 63;  ///< of a nid: lies in the metabox
inline constexpr std::uint64_t max_symlink_length = 4095;  ///< bytes of a target
inline constexpr std::size_t max_name_length = 255;        ///< bytes of a file name
inline constexpr std::uint32_t null_address = 0xFFFFFFFF;  ///< block address of a hole, 32-bit
inline constexpr std::uint64_t null_address_48 = (1ull << 48) - 1;  ///< and with 48-bit addresses

/// Features that a reader may ignore.
namespace compat {
inline constexpr std::uint32_t checksum = 0x1;               ///< the superblock's checksum is there
inline constexpr std::uint32_t mtime = 0x2;                  ///< times are mtimes
inline constexpr std::uint32_t xattr_filter = 0x4;           ///< name filters are in use
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
  std::uint8_t xattr_filter_reserved = 0;   ///< [104, 105)  nonzero: filters mean nothing
  std::uint32_t build_time = 0;             ///< [108, 112)  seconds after epoch, for display
  std::uint64_t root_nid_wide = 0;          ///< [112, 120)  with 48-bit addresses only

  /// Total: every 128 bytes are some superblock. Whether it makes sense is Reader's to say.
  [[nodiscard]] static constexpr Superblock decode(
      std::span<std::byte const, on_disk_size> raw) noexcept {
    Superblock s;
    s.magic = load_le<std::uint32_t>(raw.subspan<0, 4>());
    s.checksum = load_le<std::uint32_t>(raw.subspan<4, 4>());
    s.feature_compat = load_le<std::uint32_t>(raw.subspan<8, 4>());
    s.block_bits = std::to_integer<std::uint8_t>(raw[12]);
    s.extension_slots = std::to_integer<std::uint8_t>(raw[13]);
    s.root_nid = load_le<std::uint16_t>(raw.subspan<14, 2>());
    s.inodes = load_le<std::uint64_t>(raw.subspan<16, 8>());
    s.epoch = static_cast<std::int64_t>(load_le<std::uint64_t>(raw.subspan<24, 8>()));
    s.fixed_nsec = load_le<std::uint32_t>(raw.subspan<32, 4>());
    s.blocks_low = load_le<std::uint32_t>(raw.subspan<36, 4>());
    s.meta_block = load_le<std::uint32_t>(raw.subspan<40, 4>());
    s.xattr_block = load_le<std::uint32_t>(raw.subspan<44, 4>());
    std::ranges::copy(raw.subspan<48, 16>(), s.uuid.begin());
    std::ranges::copy(raw.subspan<64, 16>(), s.volume_name.begin());
    s.feature_incompat = load_le<std::uint32_t>(raw.subspan<80, 4>());
    s.algorithms = load_le<std::uint16_t>(raw.subspan<84, 2>());
    s.extra_devices = load_le<std::uint16_t>(raw.subspan<86, 2>());
    s.device_table_slot = load_le<std::uint16_t>(raw.subspan<88, 2>());
    s.dir_block_bits = std::to_integer<std::uint8_t>(raw[90]);
    s.xattr_prefix_count = std::to_integer<std::uint8_t>(raw[91]);
    s.xattr_prefix_start = load_le<std::uint32_t>(raw.subspan<92, 4>());
    s.packed_nid = load_le<std::uint64_t>(raw.subspan<96, 8>());
    s.xattr_filter_reserved = std::to_integer<std::uint8_t>(raw[104]);
    s.build_time = load_le<std::uint32_t>(raw.subspan<108, 4>());
    s.root_nid_wide = load_le<std::uint64_t>(raw.subspan<112, 8>());
    return s;
  }

  /// The inverse of decode(); unnamed ranges become zeros.
  constexpr void encode(std::span<std::byte, on_disk_size> raw) const noexcept {
    std::ranges::fill(raw, std::byte{0});
    store_le(magic, raw.subspan<0, 4>());
    store_le(checksum, raw.subspan<4, 4>());
    store_le(feature_compat, raw.subspan<8, 4>());
    raw[12] = std::byte{block_bits};
    raw[13] = std::byte{extension_slots};
    store_le(root_nid, raw.subspan<14, 2>());
    store_le(inodes, raw.subspan<16, 8>());
    store_le(static_cast<std::uint64_t>(epoch), raw.subspan<24, 8>());
    store_le(fixed_nsec, raw.subspan<32, 4>());
    store_le(blocks_low, raw.subspan<36, 4>());
    store_le(meta_block, raw.subspan<40, 4>());
    store_le(xattr_block, raw.subspan<44, 4>());
    std::ranges::copy(uuid, raw.subspan<48, 16>().begin());
    std::ranges::copy(volume_name, raw.subspan<64, 16>().begin());
    store_le(feature_incompat, raw.subspan<80, 4>());
    store_le(algorithms, raw.subspan<84, 2>());
    store_le(extra_devices, raw.subspan<86, 2>());
    store_le(device_table_slot, raw.subspan<88, 2>());
    raw[90] = std::byte{dir_block_bits};
    raw[91] = std::byte{xattr_prefix_count};
    store_le(xattr_prefix_start, raw.subspan<92, 4>());
    store_le(packed_nid, raw.subspan<96, 8>());
    raw[104] = std::byte{xattr_filter_reserved};
    store_le(build_time, raw.subspan<108, 4>());
    store_le(root_nid_wide, raw.subspan<112, 8>());
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

  /// Total: every 128 bytes are some slot. Whether the slot makes sense is Reader's to say.
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
