// SPDX-License-Identifier: Apache-2.0
/// @file
/// Padded: a source and zeros after it, up to a given size.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/stream_exact.hpp>
#include <erofs_oci/source/zeros.hpp>

namespace erofs_oci {

/// `Inner`, then zeros. The only combinator that makes bytes up, and only past `inner().size()`: a
/// short read of `Inner` is an error, not a place for zeros.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource Inner>
class Padded {
 public:
  /// Zeros up to `size` bytes in all.
  /// @error{std::errc::result_out_of_range, `inner` is longer than that}
  [[nodiscard]] static Result<Padded> to_size(Inner inner, std::uint64_t size) {
    if (size < inner.size()) {
      return fail(make_error_code(std::errc::result_out_of_range),
                  "pad " + std::to_string(inner.size()) + " bytes to " + std::to_string(size));
    }
    return Padded(std::move(inner), size);
  }

  /// Zeros up to the next multiple of `block` bytes; none if `inner` ends at one.
  /// @error{std::errc::result_out_of_range, `block` is 0\, or the multiple is 2^64 or more}
  [[nodiscard]] static Result<Padded> to_block(Inner inner, std::uint64_t block) {
    auto const size = block == 0 ? std::nullopt : align_up(inner.size(), block);
    if (!size) {
      return fail(
          make_error_code(std::errc::result_out_of_range),
          "pad " + std::to_string(inner.size()) + " bytes to a block of " + std::to_string(block));
    }
    return Padded(std::move(inner), *size);
  }

  /// @name RandomAccessSource
  /// @{

  /// @error{Errc::truncated, `Inner` gives fewer bytes than its size promises}
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    out = out.first(readable(size_, offset, out.size()));
    auto const real = readable(inner_.size(), offset, out.size());
    if (real > 0) EROFS_OCI_TRY(read_inside(inner_, offset, out.first(real)));
    std::ranges::fill(out.subspan(real), std::byte{});
    return out.size();
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    length = streamable(size_, offset, length);
    auto const real = streamable(inner_.size(), offset, length);
    auto streamed = stream_inside(inner_, offset, real, sink);
    if (!streamed.status || streamed.stopped) return std::move(streamed.status);
    stream_zeros(length - real, sink);
    return {};
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

 private:
  Padded(Inner inner, std::uint64_t size) noexcept : inner_(std::move(inner)), size_(size) {}

  Inner inner_;
  std::uint64_t size_;  // at least inner_.size()
};

}  // namespace erofs_oci
