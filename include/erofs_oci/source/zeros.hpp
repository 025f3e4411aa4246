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
    static constexpr std::array<std::byte, 4096> zeros{};
    auto left = offset >= size_ ? 0 : std::min(length, size_ - offset);
    while (left > 0) {
      auto const n = std::min<std::uint64_t>(left, zeros.size());
      if (!sink(std::span(zeros).first(static_cast<std::size_t>(n)))) return {};
      left -= n;
    }
    return {};
  }
  /// @}

  [[nodiscard]] std::string describe() const { return "zeros"; }

 private:
  std::uint64_t size_;
};

static_assert(RandomAccessSource<Zeros>);

}  // namespace erofs_oci
