// SPDX-License-Identifier: Apache-2.0
/// @file
/// Header: decoding of one 512-byte header block, in the v7, ustar, star and GNU dialects. No I/O.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tar/entry.hpp>

namespace erofs_oci::tar {

/// The bytes of one block.
using Block = std::span<std::byte const, block_size>;

/// Largest offset or size in an archive: everything is kept in 63 bits, as off_t is.
inline constexpr std::uint64_t max_offset =
    static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

/// Which fields after byte 257 a header has.
enum class Dialect : std::uint8_t {
  v7,     ///< none
  ustar,  ///< magic `ustar\0`: prefix [345, 500), device numbers
  star,   ///< ustar with `tar\0` at 508: prefix [345, 476)
  gnu,    ///< magic `ustar  \0`: no prefix; old sparse map from 386
};

/// The fields of one header block. Numbers that the type does not use are 0.
struct Header {
  std::string name;        ///< [0, 100), with the prefix in front
  std::string link;        ///< [157, 257)
  std::uint32_t mode = 0;  ///< [100, 108), low 12 bits
  std::uint64_t uid = 0;   ///< [108, 116)
  std::uint64_t gid = 0;   ///< [116, 124)
  std::uint64_t size = 0;  ///< [124, 136)
  std::int64_t mtime = 0;  ///< [136, 148), seconds
  char typeflag = '\0';    ///< [156]
  Dialect dialect = Dialect::v7;
  std::uint64_t dev_major = 0;  ///< [329, 337), types 3 and 4 only
  std::uint64_t dev_minor = 0;  ///< [337, 345), types 3 and 4 only
};

/// Whether the block is all zeros: half of an end marker.
[[nodiscard]] inline bool is_zero(std::span<std::byte const> bytes) noexcept {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

/// A field's text, up to its first NUL.
[[nodiscard]] inline std::string_view field_text(std::span<std::byte const> field) noexcept {
  auto const text = as_text(field);
  return text.substr(0, std::min(text.find('\0'), text.size()));
}

/// A number: octal, padded by spaces or NULs on both sides (none at all is 0), or base-256 if the
/// first bit is set. Empty if it is neither, or leaves the 63 bits of an int64.
/// @spec{POSIX pax, ustar Interchange Format; GNU tar manual, Extensions}
[[nodiscard]] inline std::optional<std::int64_t> field_number(
    std::span<std::byte const> field) noexcept {
  auto constexpr limit = std::numeric_limits<std::int64_t>::max();
  if (!field.empty() && (field[0] & std::byte{0x80}) != std::byte{0}) {
    // two's complement, big endian, in all bits but the first
    auto const negative = (field[0] & std::byte{0x40}) != std::byte{0};
    auto const flip = negative ? 0xffu : 0u;
    std::int64_t value = 0;
    for (std::size_t i = 0; i < field.size(); ++i) {
      auto byte = std::to_integer<unsigned>(field[i]) ^ flip;
      if (i == 0) byte &= 0x3fu;
      if (value > (limit >> 8)) return std::nullopt;
      value = value * 256 + static_cast<std::int64_t>(byte);
    }
    return negative ? -value - 1 : value;
  }
  auto const text = as_text(field);
  auto const blank = [](char c) { return c == ' ' || c == '\0'; };
  auto at = std::ranges::find_if_not(text, blank);
  auto const negative = at != text.end() && *at == '-';
  if (negative) ++at;
  std::int64_t value = 0;
  for (; at != text.end() && !blank(*at); ++at) {
    if (*at < '0' || *at > '7' || value > (limit >> 3)) return std::nullopt;
    value = value * 8 + (*at - '0');
  }
  return negative ? -value : value;
}

/// All of `text` as a decimal number below 2^63.
[[nodiscard]] inline std::optional<std::uint64_t> decimal(std::string_view text) noexcept {
  std::uint64_t value = 0;
  auto const* const end = text.data() + text.size();
  auto const [at, code] = std::from_chars(text.data(), end, value);
  if (code != std::errc{} || at != end || text.empty() || value > max_offset) return std::nullopt;
  return value;
}

namespace detail {

/// The checksum of a header in both readings: bytes unsigned (POSIX), and signed (old tars).
struct Sums {
  std::int64_t as_unsigned = 0;
  std::int64_t as_signed = 0;
};

[[nodiscard]] inline Sums header_sums(Block block) noexcept {
  Sums sums;
  for (std::size_t i = 0; i < block.size(); ++i) {
    auto const byte = i >= 148 && i < 156 ? 32 : std::to_integer<int>(block[i]);
    sums.as_unsigned += byte;
    sums.as_signed += byte < 128 ? byte : byte - 256;
  }
  return sums;
}

[[nodiscard]] inline Dialect header_dialect(Block block) noexcept {
  auto const magic = as_text(block.subspan<257, 8>());
  if (magic == std::string_view("ustar  \0", 8)) return Dialect::gnu;
  if (magic.substr(0, 6) != std::string_view("ustar\0", 6)) return Dialect::v7;
  auto const star = as_text(block.subspan<508, 4>()) == std::string_view("tar\0", 4);
  return star ? Dialect::star : Dialect::ustar;
}

[[nodiscard]] inline std::string header_name(Block block, Dialect dialect) {
  auto const name = field_text(block.first<100>());
  std::string_view prefix;
  if (dialect == Dialect::ustar) prefix = field_text(block.subspan<345, 155>());
  if (dialect == Dialect::star) prefix = field_text(block.subspan<345, 131>());
  if (prefix.empty()) return std::string(name);
  return std::string(prefix) + "/" + std::string(name);
}

[[nodiscard]] inline Result<std::uint64_t> unsigned_field(std::span<std::byte const> field,
                                                          std::string_view what) {
  auto const value = field_number(field);
  if (!value || *value < 0) {
    return fail(Errc::corrupt, std::string(what) + " field " + printable(as_text(field)));
  }
  return static_cast<std::uint64_t>(*value);
}

}  // namespace detail

/// Decodes a header. The caller has made sure that the block is not all zeros.
///
/// A number that its type does not need (device numbers of a file) is not looked at. Numbers that
/// an extended header may replace are decoded all the same: a header that lies is refused.
/// @error{Errc::corrupt, the checksum is wrong in both readings\, or a number is none}
[[nodiscard]] inline Result<Header> decode_header(Block block) {
  auto const sums = detail::header_sums(block);
  auto const sum = field_number(block.subspan<148, 8>());
  if (!sum || (*sum != sums.as_unsigned && *sum != sums.as_signed)) {
    return fail(Errc::corrupt, "header checksum is " +
                                   printable(field_text(block.subspan<148, 8>())) +
                                   ", the header sums up to " + std::to_string(sums.as_unsigned));
  }
  Header header;
  header.dialect = detail::header_dialect(block);
  header.name = detail::header_name(block, header.dialect);
  header.link = std::string(field_text(block.subspan<157, 100>()));
  header.typeflag = std::to_integer<char>(block[156]);

  auto const mode = detail::unsigned_field(block.subspan<100, 8>(), "mode");
  auto const uid = detail::unsigned_field(block.subspan<108, 8>(), "uid");
  auto const gid = detail::unsigned_field(block.subspan<116, 8>(), "gid");
  auto const size = detail::unsigned_field(block.subspan<124, 12>(), "size");
  auto const mtime = field_number(block.subspan<136, 12>());
  for (auto const* number : {&mode, &uid, &gid, &size}) {
    if (!*number) return fail(number->error(), printable(header.name));
  }
  if (!mtime) return fail(Errc::corrupt, printable(header.name) + ": mtime field");
  header.mode = static_cast<std::uint32_t>(*mode & 07777);
  header.uid = *uid;
  header.gid = *gid;
  header.size = *size;
  header.mtime = *mtime;
  if (header.dialect == Dialect::v7 || (header.typeflag != '3' && header.typeflag != '4')) {
    return header;
  }
  auto const dev_major = detail::unsigned_field(block.subspan<329, 8>(), "device major");
  auto const dev_minor = detail::unsigned_field(block.subspan<337, 8>(), "device minor");
  if (!dev_major) return fail(dev_major.error(), printable(header.name));
  if (!dev_minor) return fail(dev_minor.error(), printable(header.name));
  header.dev_major = *dev_major;
  header.dev_minor = *dev_minor;
  return header;
}

}  // namespace erofs_oci::tar
