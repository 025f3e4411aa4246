// SPDX-License-Identifier: Apache-2.0
/// @file
/// Concat: sources end to end, their number and types known when compiling.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <tuple>
#include <utility>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/stream_exact.hpp>

namespace erofs_oci {

/// The parts in turn, as one run of bytes.
///
/// A read that touches k parts makes k inner reads, in ascending order; empty parts are never
/// touched. A part that gives fewer bytes than its size promises is an error: the bytes of the next
/// part never move up.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource... Parts>
  requires(sizeof...(Parts) > 0)
class Concat {
 public:
  /// Owns the parts, whose sizes must add up to less than 2^64; make() checks that.
  explicit Concat(Parts... parts) noexcept : Concat(ends_of(parts...), std::move(parts)...) {
    assert(fits(std::index_sequence_for<Parts...>{}));
  }

  /// Owns the parts.
  /// @error{std::errc::value_too_large, the sizes add up to 2^64 or more}
  [[nodiscard]] static Result<Concat> make(Parts... parts) {
    Concat made(ends_of(parts...), std::move(parts)...);
    if (!made.fits(std::index_sequence_for<Parts...>{})) {
      return fail(make_error_code(std::errc::value_too_large), "concat: size");
    }
    return made;
  }

  /// @name RandomAccessSource
  /// @{

  /// @error{Errc::truncated, a part gives fewer bytes than its size promises}
  [[nodiscard]] std::uint64_t size() const noexcept { return ends_.back(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    out = out.first(readable(size(), offset, out.size()));
    return read_parts(out, [&](auto const& f) { for_each_touched(offset, out.size(), f); });
  }

  /// One inner stream a part.
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    return stream_parts(sink, [&](auto const& f) { for_each_touched(offset, length, f); });
  }

  /// Whether any part is.
  [[nodiscard]] bool is_remote() const {
    return std::apply([](auto const&... part) { return (erofs_oci::is_remote(part) || ...); },
                      parts_);
  }

  [[nodiscard]] std::string describe() const {
    std::string text;
    auto const add = [&](auto const& part) {
      text += (text.empty() ? "" : " + ") + erofs_oci::describe(part);
    };
    std::apply([&](auto const&... part) { (add(part), ...); }, parts_);
    return text;
  }
  /// @}

  /// Part number `I`, from 0.
  template <std::size_t I>
  [[nodiscard]] auto const& part() const noexcept {
    return std::get<I>(parts_);
  }

 private:
  using Ends = std::array<std::uint64_t, sizeof...(Parts)>;

  // Takes the sizes before the parts move away.
  Concat(Ends ends, Parts&&... parts) noexcept : parts_(std::move(parts)...), ends_(ends) {}

  // Saturates: bytes beyond 2^64 - 1 are out of reach, and no sum below can overflow.
  static Ends ends_of(Parts const&... parts) noexcept {
    Ends ends{parts.size()...};
    for (std::size_t i = 1; i < ends.size(); ++i) {
      ends[i] =
          checked_add(ends[i - 1], ends[i]).value_or(std::numeric_limits<std::uint64_t>::max());
    }
    return ends;
  }

  template <std::size_t... I>
  [[nodiscard]] bool fits(std::index_sequence<I...>) const noexcept {
    return ((std::get<I>(parts_).size() == ends_[I] - begin_of(I)) && ...);
  }

  [[nodiscard]] std::uint64_t begin_of(std::size_t i) const noexcept {
    return i == 0 ? 0 : ends_[i - 1];
  }

  /// Calls f(part, offset in the part, bytes) for each part that holds some of the bytes, in
  /// order, until it says false. Bytes at or past the end touch nothing.
  template <class F>
  void for_each_touched(std::uint64_t offset, std::uint64_t length, F f) const {
    auto const end = offset + streamable(size(), offset, length);
    auto const visit = [&](auto const& part, std::size_t i) {
      auto const from = std::max(offset, begin_of(i));
      auto const to = std::min(end, ends_[i]);
      return from >= to || f(part, from - begin_of(i), to - from);
    };
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      static_cast<void>((visit(std::get<I>(parts_), I) && ...));
    }(std::index_sequence_for<Parts...>{});
  }

  std::tuple<Parts...> parts_;
  Ends ends_;  // ends_[i] is where part i ends; ascending
};

}  // namespace erofs_oci
