// SPDX-License-Identifier: Apache-2.0
/// @file
/// The zinfo file: SOCI's and erofs-utils' gzip checkpoint index, versions 1 and 2.
///
/// ```
/// header, 12 bytes, little endian
///   [0, 4)    u32  checkpoints, the first one included
///   [4, 12)   u64  span size that the builder was asked for; information only, may be 0
/// then records of 32785 bytes
///   [0, 8)    u64  in      \.
///   [8, 16)   u64  out      > as in Checkpoint
///   [16, 17)  u8   bits    /
///   [17, 32785)    window: the 32 KiB of decoded data before `out`, newest byte last
/// ```
/// Version 2 has a record for each checkpoint, version 1 none for the first. No magic, no checksum
/// and no blob size: the file's own size tells the version.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>

namespace erofs_oci {

inline constexpr std::size_t zinfo_header_size = 12;                     ///< bytes
inline constexpr std::size_t zinfo_record_size = 17 + gzip_window_size;  ///< bytes

/// Most checkpoints that are read: 64 TiB in spans of 4 MiB. Their windows are never all in memory.
inline constexpr std::uint32_t zinfo_most_checkpoints = 1U << 24;

/// What the first 12 bytes and the file's size say.
struct ZinfoHeader {
  std::uint32_t checkpoints = 0;  ///< 1 or more
  std::uint64_t span_size = 0;    ///< information only
  bool first_is_stored = true;    ///< version 2

  /// @param raw        the file's first bytes
  /// @param file_size  of the whole file, in bytes
  /// @error{Errc::corrupt, the file's size is not what its header asks for}
  [[nodiscard]] static Result<ZinfoHeader> decode(std::span<std::byte const, zinfo_header_size> raw,
                                                  std::uint64_t file_size);

  /// The 12 bytes of a version 2 file.
  [[nodiscard]] std::array<std::byte, zinfo_header_size> encode() const noexcept;
};

/// The fixed part of a record, without its window.
[[nodiscard]] Checkpoint decode_zinfo_record(std::span<std::byte const, 17> raw) noexcept;

/// The inverse of decode_zinfo_record().
[[nodiscard]] std::array<std::byte, 17> encode_zinfo_record(Checkpoint const& p) noexcept;

/// Reads a zinfo file of either version. Windows stay in `file`, which the index owns from here on;
/// they are read when a span is entered.
/// @error{Errc::corrupt, the size or a checkpoint breaks a rule}
[[nodiscard]] Result<GzipIndex> read_zinfo(AnySource file);

/// Writes a version 2 file, in pieces, to `sink`; false from the sink ends it early.
/// @error{Errc::unsupported, more checkpoints than the format counts}
[[nodiscard]] Result<void> write_zinfo(GzipIndex const& index, std::uint64_t span_size,
                                       ByteSink sink);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/gzip/detail/zinfo_body.hpp>
#endif
