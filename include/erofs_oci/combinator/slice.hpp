// SPDX-License-Identifier: Apache-2.0
/// @file
/// Slice: a window into a source.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

/// The bytes [begin, begin + length) of `Inner`, renumbered from 0.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource Inner>
class Slice {
 public:
  /// @param inner   the source to look into; owned from here on
  /// @param begin   first byte of the window, counted in `inner`
  /// @param length  bytes in the window; 0 is a valid, empty window
  /// @error{std::errc::result_out_of_range, the window reaches past the end of `inner`}
  [[nodiscard]] static Result<Slice> make(Inner inner, std::uint64_t begin, std::uint64_t length) {
    if (begin > inner.size() || length > inner.size() - begin) {
      return fail(make_error_code(std::errc::result_out_of_range),
                  "slice of " + std::to_string(length) + " bytes at offset " +
                      std::to_string(begin) + " in " + std::to_string(inner.size()));
    }
    return Slice(std::move(inner), begin, length);
  }

  /// @name RandomAccessSource
  /// @{

  /// Never allocates; one inner read, or none for an empty one.
  [[nodiscard]] std::uint64_t size() const noexcept { return length_; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const n = readable(length_, offset, out.size());
    if (n == 0) return std::size_t{0};
    return inner_.read_at(begin_ + offset, out.first(n));
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    auto const n = streamable(length_, offset, length);
    if (n == 0) return {};
    return erofs_oci::stream(inner_, begin_ + offset, n, sink);
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

 private:
  Slice(Inner inner, std::uint64_t begin, std::uint64_t length) noexcept
      : inner_(std::move(inner)), begin_(begin), length_(length) {}

  Inner inner_;
  std::uint64_t begin_;
  std::uint64_t length_;  // begin_ + length_ <= inner_.size(), so no sum below can overflow
};

}  // namespace erofs_oci
