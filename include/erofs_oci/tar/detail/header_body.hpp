// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tar/header.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/header.hpp>

namespace erofs_oci::tar {

EROFS_OCI_BODY bool is_zero(std::span<std::byte const> bytes) noexcept {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

EROFS_OCI_BODY std::string_view field_text(std::span<std::byte const> field) noexcept {
  auto const text = as_text(field);
  return text.substr(0, std::min(text.find('\0'), text.size()));
}

EROFS_OCI_BODY std::optional<std::int64_t> field_number(std::span<std::byte const> field) noexcept {
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

EROFS_OCI_BODY std::optional<std::uint64_t> decimal(std::string_view text) noexcept {
  auto const value = whole_number<std::uint64_t>(text);
  return value && *value <= max_offset ? value : std::nullopt;
}

namespace detail {

/// The checksum of a header in both readings: bytes unsigned (POSIX), and signed (old tars).
[[nodiscard]] inline std::pair<std::int64_t, std::int64_t> header_sums(Block block) noexcept {
  std::int64_t as_unsigned = 0;
  std::int64_t as_signed = 0;
  for (std::size_t i = 0; i < block.size(); ++i) {
    auto const byte = i >= 148 && i < 156 ? 32 : std::to_integer<int>(block[i]);
    as_unsigned += byte;
    as_signed += byte < 128 ? byte : byte - 256;
  }
  return {as_unsigned, as_signed};
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

}  // namespace detail

EROFS_OCI_BODY Result<Header> decode_header(Block block) {
  auto const [as_unsigned, as_signed] = detail::header_sums(block);
  auto const sum = field_number(block.subspan<148, 8>());
  if (!sum || (*sum != as_unsigned && *sum != as_signed)) {
    return fail(Errc::corrupt, "header checksum is " +
                                   printable(field_text(block.subspan<148, 8>())) +
                                   ", the header sums up to " + std::to_string(as_unsigned));
  }
  Header header;
  header.dialect = detail::header_dialect(block);
  header.name = detail::header_name(block, header.dialect);
  header.link = std::string(field_text(block.subspan<157, 100>()));
  header.typeflag = std::to_integer<char>(block[156]);

  auto const number = [&](std::span<std::byte const> field,
                          std::string_view what) -> Result<std::uint64_t> {
    auto const value = field_number(field);
    if (value && *value >= 0) return static_cast<std::uint64_t>(*value);
    return fail(Errc::corrupt, printable(header.name) + ": " + std::string(what) + " field " +
                                   printable(as_text(field)));
  };
  EROFS_OCI_TRY_ASSIGN(auto const mode, number(block.subspan<100, 8>(), "mode"));
  header.mode = static_cast<std::uint32_t>(mode & 07777);
  EROFS_OCI_TRY_ASSIGN(header.uid, number(block.subspan<108, 8>(), "uid"));
  EROFS_OCI_TRY_ASSIGN(header.gid, number(block.subspan<116, 8>(), "gid"));
  EROFS_OCI_TRY_ASSIGN(header.size, number(block.subspan<124, 12>(), "size"));
  auto const mtime = field_number(block.subspan<136, 12>());
  if (!mtime) return fail(Errc::corrupt, printable(header.name) + ": mtime field");
  header.mtime = *mtime;
  if (header.dialect == Dialect::v7 || (header.typeflag != '3' && header.typeflag != '4')) {
    return header;
  }
  EROFS_OCI_TRY_ASSIGN(header.dev_major, number(block.subspan<329, 8>(), "device major"));
  EROFS_OCI_TRY_ASSIGN(header.dev_minor, number(block.subspan<337, 8>(), "device minor"));
  return header;
}

}  // namespace erofs_oci::tar
