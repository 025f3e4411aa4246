// SPDX-License-Identifier: Apache-2.0
/// @file
/// Zeros: a source of zero bytes.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

/// Hands `length` zero bytes to `sink`, in pieces, until it says false.
inline void stream_zeros(std::uint64_t length, ByteSink sink) {
  static constexpr std::array<std::byte, 65536> zeros{};
  while (length > 0) {
    auto const n = std::min<std::uint64_t>(length, zeros.size());
    if (!sink(std::span(zeros).first(static_cast<std::size_t>(n)))) return;
    length -= n;
  }
}

/// `size` zero bytes, up to 2^64 - 1; takes no memory for them.
class Zeros {
 public:
  /// @param size  bytes
  explicit constexpr Zeros(std::uint64_t size) noexcept : size_(size) {}

  /// @name RandomAccessSource
  /// @{

  /// Never fails.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const n = readable(size_, offset, out.size());
    std::ranges::fill(out.first(n), std::byte{});
    return n;
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    stream_zeros(streamable(size_, offset, length), sink);
    return {};
  }
  /// @}

  [[nodiscard]] std::string describe() const { return "zeros"; }

 private:
  std::uint64_t size_;
};

static_assert(RandomAccessSource<Zeros>);

}  // namespace erofs_oci
