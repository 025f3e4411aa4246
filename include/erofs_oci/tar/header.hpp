// SPDX-License-Identifier: Apache-2.0
/// @file
/// Header: decoding of one 512-byte header block, in the v7, ustar, star and GNU dialects. No I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

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
[[nodiscard]] bool is_zero(std::span<std::byte const> bytes) noexcept;

/// A field's text, up to its first NUL.
[[nodiscard]] std::string_view field_text(std::span<std::byte const> field) noexcept;

/// A number: octal, padded by spaces or NULs on both sides (none at all is 0), or base-256 if the
/// first bit is set. Empty if it is neither, or leaves the 63 bits of an int64.
/// @spec{POSIX pax, ustar Interchange Format; GNU tar manual, Extensions}
[[nodiscard]] std::optional<std::int64_t> field_number(std::span<std::byte const> field) noexcept;

/// All of `text` as a decimal number below 2^63.
[[nodiscard]] std::optional<std::uint64_t> decimal(std::string_view text) noexcept;

/// Decodes a header. The caller has made sure that the block is not all zeros.
///
/// A number that its type does not need (device numbers of a file) is ignored. Numbers that an
/// extended header may replace are decoded, too: a header with wrong ones is refused.
/// @error{Errc::corrupt, the checksum is wrong in both readings\, or a number is none}
[[nodiscard]] Result<Header> decode_header(Block block);

}  // namespace erofs_oci::tar

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tar/detail/header_body.hpp>
#endif
