// SPDX-License-Identifier: Apache-2.0
/// @file
/// What gzip/zinfo.hpp only declares.
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
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/zinfo.hpp>

namespace erofs_oci {

EROFS_OCI_BODY Result<ZinfoHeader> ZinfoHeader::decode(
    std::span<std::byte const, zinfo_header_size> raw, std::uint64_t file_size) {
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

EROFS_OCI_BODY std::array<std::byte, zinfo_header_size> ZinfoHeader::encode() const noexcept {
  std::array<std::byte, zinfo_header_size> raw{};
  store_le(checkpoints, std::span(raw).first<4>());
  store_le(span_size, std::span(raw).subspan<4, 8>());
  return raw;
}

EROFS_OCI_BODY Checkpoint decode_zinfo_record(std::span<std::byte const, 17> raw) noexcept {
  return {load_le<std::uint64_t>(raw.first<8>()), load_le<std::uint64_t>(raw.subspan<8, 8>()),
          std::to_integer<std::uint8_t>(raw[16])};
}

EROFS_OCI_BODY std::array<std::byte, 17> encode_zinfo_record(Checkpoint const& p) noexcept {
  std::array<std::byte, 17> raw{};
  store_le(p.in, std::span(raw).first<8>());
  store_le(p.out, std::span(raw).subspan<8, 8>());
  raw[16] = std::byte{p.bits};
  return raw;
}

EROFS_OCI_BODY Result<GzipIndex> read_zinfo(AnySource file) {
  auto const name = describe(file);
  std::array<std::byte, zinfo_header_size> start{};
  if (file.size() < start.size()) {
    return fail(Errc::corrupt, name + ": zinfo of " + std::to_string(file.size()) +
                                   " bytes, its header alone has 12");
  }
  EROFS_OCI_TRY(read_exact(file, 0, start), name);
  EROFS_OCI_TRY_ASSIGN(auto const header, ZinfoHeader::decode(start, file.size()), name);

  GzipIndex index;
  std::size_t const implied = header.first_is_stored ? 0 : 1;
  if (implied == 1) {
    index.checkpoints.push_back({10, 0, 0});
    index.first_is_assumed = true;
  }
  auto const stored = header.checkpoints - implied;
  for (std::size_t i = 0; i < stored; ++i) {
    std::array<std::byte, 17> raw{};
    EROFS_OCI_TRY(read_exact(file, zinfo_header_size + i * zinfo_record_size, raw), name);
    index.checkpoints.push_back(decode_zinfo_record(raw));
  }
  EROFS_OCI_TRY(check_checkpoints(index.checkpoints), name);

  // std::function wants a copyable callable, hence the shared owner.
  auto const shared = std::make_shared<AnySource const>(std::move(file));
  index.window = [shared, implied](std::size_t i,
                                   std::span<std::byte, gzip_window_size> window) -> Result<void> {
    if (i < implied) {
      std::ranges::fill(window, std::byte{0});
      return {};
    }
    auto const at = zinfo_header_size + (i - implied) * zinfo_record_size + 17;
    EROFS_OCI_TRY(read_exact(*shared, at, window), "window of checkpoint " + std::to_string(i));
    return {};
  };
  return index;
}

EROFS_OCI_BODY Result<void> write_zinfo(GzipIndex const& index, std::uint64_t span_size,
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
