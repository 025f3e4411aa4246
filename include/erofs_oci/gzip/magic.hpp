// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a blob's first bytes say of its compression.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace erofs_oci {

/// A compression that its first bytes show.
enum class Compression : std::uint8_t { none, gzip, zstd };

/// @param start  of a blob; more than 4 bytes say nothing more
[[nodiscard]] inline Compression compression_of(std::span<std::byte const> start) noexcept {
  auto const begins_with = [&](auto... bytes) {
    std::array const magic{static_cast<std::byte>(bytes)...};
    return start.size() >= magic.size() && std::ranges::equal(magic, start.first(magic.size()));
  };
  if (begins_with(0x1f, 0x8b)) return Compression::gzip;
  if (begins_with(0x28, 0xb5, 0x2f, 0xfd)) return Compression::zstd;
  return Compression::none;
}

}  // namespace erofs_oci
