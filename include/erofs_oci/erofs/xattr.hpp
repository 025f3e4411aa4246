// SPDX-License-Identifier: Apache-2.0
/// @file
/// Extended attributes as stored: area header, entries, name prefixes. No I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>

#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci::erofs {

inline constexpr std::size_t max_xattr_value = 65535;  ///< bytes
inline constexpr std::size_t max_xattr_name = 255;     ///< bytes after the prefix
inline constexpr std::size_t max_xattr_area = 262148;  ///< bytes an inode
/// Most bytes of the shared xattrs of all inodes together; each counts once for every inode that
/// refers to it. As much as a label of 60 bytes on a million files.
inline constexpr std::uint64_t max_shared_xattrs = 64 << 20;
inline constexpr std::uint8_t internal_prefix =
    0;  ///< entries that the kernel neither lists nor returns
inline constexpr std::uint8_t long_prefix_bit = 0x80;  ///< of a prefix index

/// Our mark on implied directories, under `internal_prefix`; its value is empty.
inline constexpr std::string_view implied_mark = "erofs_oci.implied";

/// The text of a base prefix; empty optional for an index without one.
[[nodiscard]] constexpr std::optional<std::string_view> base_prefix(std::uint8_t index) noexcept {
  switch (index) {
    case 1: return "user.";
    case 2: return "system.posix_acl_access";
    case 3: return "system.posix_acl_default";
    case 4: return "trusted.";
    case 6: return "security.";
    default: return std::nullopt;
  }
}

/// A full name as stored.
struct StoredName {
  std::uint8_t prefix = 0;
  std::string_view rest;  ///< borrowed from the full name
};

/// Splits a full name; empty optional for a namespace that cannot be stored, or a rest that is
/// empty where it must not be.
[[nodiscard]] constexpr std::optional<StoredName> split_name(std::string_view name) noexcept {
  for (auto const index : std::initializer_list<std::uint8_t>{1, 2, 3, 4, 6}) {
    auto const prefix = *base_prefix(index);
    auto const has_rest = prefix.ends_with('.');
    if (name.starts_with(prefix) && (name.size() > prefix.size()) == has_rest) {
      return StoredName{index, name.substr(prefix.size())};
    }
  }
  return std::nullopt;
}

/// The head of an inode's xattr area: 12 bytes; [5, 12) is zero. Then `shared` ids of 4 bytes, then
/// entries that fill the area exactly.
struct XattrHeader {
  static constexpr std::size_t on_disk_size = 12;  ///< bytes

  std::uint32_t filter = 0;  ///< [0, 4)  a set bit: no name hashes there
  std::uint8_t shared = 0;   ///< [4, 5)  count of shared ids

  /// Total.
  [[nodiscard]] static constexpr XattrHeader decode(
      std::span<std::byte const, on_disk_size> raw) noexcept {
    return {load_le<std::uint32_t>(raw.first<4>()), std::to_integer<std::uint8_t>(raw[4])};
  }
};

/// The head of one entry: 4 bytes, then the name without its prefix, the value, zeros to a multiple
/// of 4.
struct XattrEntry {
  static constexpr std::size_t on_disk_size = 4;  ///< bytes

  std::uint8_t name_size = 0;    ///< [0, 1)
  std::uint8_t prefix = 0;       ///< [1, 2)
  std::uint16_t value_size = 0;  ///< [2, 4)

  /// Total.
  [[nodiscard]] static constexpr XattrEntry decode(
      std::span<std::byte const, on_disk_size> raw) noexcept {
    return {std::to_integer<std::uint8_t>(raw[0]), std::to_integer<std::uint8_t>(raw[1]),
            load_le<std::uint16_t>(raw.subspan<2, 2>())};
  }

  /// The inverse.
  constexpr void encode(std::span<std::byte, on_disk_size> raw) const noexcept {
    raw[0] = std::byte{name_size};
    raw[1] = std::byte{prefix};
    store_le(value_size, raw.subspan<2, 2>());
  }

  /// Bytes of head, name and value.
  [[nodiscard]] constexpr std::size_t size() const noexcept {
    return on_disk_size + name_size + value_size;
  }
  /// The same with the padding.
  [[nodiscard]] constexpr std::size_t padded_size() const noexcept { return (size() + 3) & ~3u; }
};

/// An entry with its strings, borrowed from the area.
struct XattrView {
  std::uint8_t prefix = 0;
  std::string_view rest;  ///< the name after the prefix
  std::span<std::byte const> value;
};

/// Visits the shared ids, then the entries, of one area; a visitor returns false to end early.
/// @param area  12 bytes at least
/// @error{Errc::corrupt, ids or entries do not fit the area; the text gives the offset in it}
[[nodiscard]] Result<void> for_each_xattr(std::span<std::byte const> area,
                                          FunctionRef<bool(std::uint32_t)> shared,
                                          FunctionRef<bool(XattrView)> entry);

}  // namespace erofs_oci::erofs

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/erofs/detail/xattr_body.hpp>
#endif
