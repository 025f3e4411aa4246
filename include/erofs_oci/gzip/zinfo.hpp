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
#include <memory>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
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
                                                  std::uint64_t file_size) {
    ZinfoHeader header;
    header.checkpoints = load_le<std::uint32_t>(raw.first<4>());
    header.span_size = load_le<std::uint64_t>(raw.subspan<4, 8>());
    std::uint64_t const have = header.checkpoints;
    if (have == 0) return fail(Errc::corrupt, "zinfo offset 0: no checkpoints");
    if (have > zinfo_most_checkpoints) {
      return fail(Errc::corrupt, "zinfo offset 0: " + std::to_string(have) + " checkpoints, most " +
                                     std::to_string(zinfo_most_checkpoints));
    }
    auto const with_records = [](std::uint64_t n) {
      return zinfo_header_size + n * zinfo_record_size;
    };
    header.first_is_stored = file_size == with_records(have);
    if (!header.first_is_stored && file_size != with_records(have - 1)) {
      return fail(Errc::corrupt, "zinfo with " + std::to_string(have) + " checkpoints has " +
                                     std::to_string(file_size) + " bytes, not " +
                                     std::to_string(with_records(have)));
    }
    return header;
  }

  /// The 12 bytes of a version 2 file.
  [[nodiscard]] std::array<std::byte, zinfo_header_size> encode() const noexcept {
    std::array<std::byte, zinfo_header_size> raw{};
    store_le(checkpoints, std::span(raw).first<4>());
    store_le(span_size, std::span(raw).subspan<4, 8>());
    return raw;
  }
};

/// The fixed part of a record, without its window.
[[nodiscard]] inline Checkpoint decode_zinfo_record(std::span<std::byte const, 17> raw) noexcept {
  return {load_le<std::uint64_t>(raw.first<8>()), load_le<std::uint64_t>(raw.subspan<8, 8>()),
          std::to_integer<std::uint8_t>(raw[16])};
}

/// The inverse of decode_zinfo_record().
[[nodiscard]] inline std::array<std::byte, 17> encode_zinfo_record(Checkpoint const& p) noexcept {
  std::array<std::byte, 17> raw{};
  store_le(p.in, std::span(raw).first<8>());
  store_le(p.out, std::span(raw).subspan<8, 8>());
  raw[16] = std::byte{p.bits};
  return raw;
}

/// Reads a zinfo file of either version. Windows stay in `file`, which the index owns from here on;
/// they are read when a span is entered.
/// @error{Errc::corrupt, the size or a checkpoint breaks a rule}
[[nodiscard]] inline Result<GzipIndex> read_zinfo(AnySource file) {
  auto const name = describe(file);
  std::array<std::byte, zinfo_header_size> start{};
  if (file.size() < start.size()) {
    return fail(Errc::corrupt, name + ": zinfo of " + std::to_string(file.size()) +
                                   " bytes, its header alone has 12");
  }
  if (auto const ok = read_exact(file, 0, start); !ok) return fail(ok.error(), name);
  auto const header = ZinfoHeader::decode(start, file.size());
  if (!header) return fail(header.error(), name);

  GzipIndex index;
  std::size_t const implied = header->first_is_stored ? 0 : 1;
  if (implied == 1) {
    index.checkpoints.push_back({10, 0, 0});
    index.first_is_assumed = true;
  }
  auto const stored = header->checkpoints - implied;
  for (std::size_t i = 0; i < stored; ++i) {
    std::array<std::byte, 17> raw{};
    if (auto const ok = read_exact(file, zinfo_header_size + i * zinfo_record_size, raw); !ok) {
      return fail(ok.error(), name);
    }
    index.checkpoints.push_back(decode_zinfo_record(raw));
  }
  if (auto const ok = check_checkpoints(index.checkpoints); !ok) return fail(ok.error(), name);

  // std::function wants a copyable callable, hence the shared owner.
  auto const shared = std::make_shared<AnySource const>(std::move(file));
  index.window = [shared, implied](std::size_t i,
                                   std::span<std::byte, gzip_window_size> window) -> Result<void> {
    if (i < implied) {
      std::ranges::fill(window, std::byte{0});
      return {};
    }
    auto const at = zinfo_header_size + (i - implied) * zinfo_record_size + 17;
    if (auto const ok = read_exact(*shared, at, window); !ok) {
      return fail(ok.error(), "window of checkpoint " + std::to_string(i));
    }
    return {};
  };
  return index;
}

/// Writes a version 2 file, in pieces, to `sink`; false from the sink ends it early.
/// @error{Errc::unsupported, more checkpoints than the format counts}
[[nodiscard]] inline Result<void> write_zinfo(GzipIndex const& index, std::uint64_t span_size,
                                              ByteSink sink) {
  if (index.checkpoints.size() > zinfo_most_checkpoints) {
    return fail(Errc::unsupported,
                "zinfo with " + std::to_string(index.checkpoints.size()) + " checkpoints");
  }
  ZinfoHeader const header{static_cast<std::uint32_t>(index.checkpoints.size()), span_size, true};
  if (!sink(header.encode())) return {};
  Bytes window(gzip_window_size);
  for (std::size_t i = 0; i < index.checkpoints.size(); ++i) {
    auto const part = std::span(window).first<gzip_window_size>();
    if (auto const ok = index.window(i, part); !ok) return ok;
    if (!sink(encode_zinfo_record(index.checkpoints[i])) || !sink(window)) return {};
  }
  return {};
}

}  // namespace erofs_oci
