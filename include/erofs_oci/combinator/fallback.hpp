// SPDX-License-Identifier: Apache-2.0
/// @file
/// Fallback: a second source that steps in where the first one fails.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/stream_exact.hpp>

namespace erofs_oci {

/// Whether an error says that bytes are wrong, rather than out of reach.
[[nodiscard]] inline bool is_damage(Error const& error) noexcept {
  return error.code == Errc::corrupt || error.code == Errc::digest_mismatch ||
         error.code == Errc::mismatch || error.code == Errc::truncated;
}

/// Called with each error of a first source before the second one is read, from any thread.
template <class R>
concept FaultReport = std::movable<R> && std::invocable<R const&, Error const&>;

/// A FaultReport that ignores errors. Must be chosen explicitly.
struct IgnoreFaults {
  void operator()(Error const&) const noexcept {}
};

/// Reads `First`; what it cannot give comes from `Second`, a copy of it.
///
/// Calls `Report` with every error of `First` (see is_damage() for those that an operator must
/// see). If both fail, the error is that of `Second`, or of `First` if only that one is transient;
/// its text names both.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource First, RandomAccessSource Second, FaultReport Report>
class Fallback {
 public:
  /// Owns all three.
  /// @error{Errc::mismatch, the two are not of one size}
  [[nodiscard]] static Result<Fallback> make(First first, Second second, Report report) {
    if (first.size() != second.size()) {
      return fail(Errc::mismatch, "fallback: " + erofs_oci::describe(first) + " has " +
                                      std::to_string(first.size()) + " bytes, " +
                                      erofs_oci::describe(second) + " has " +
                                      std::to_string(second.size()));
    }
    return Fallback(std::move(first), std::move(second), std::move(report));
  }

  /// @name RandomAccessSource
  /// @{

  /// At most one read of each.
  [[nodiscard]] std::uint64_t size() const noexcept { return first_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    out = out.first(readable(size(), offset, out.size()));
    if (out.empty()) return std::size_t{0};
    auto ok = read_inside(first_, offset, out);
    if (ok) return out.size();
    report_(std::as_const(ok).error());
    auto second = read_inside(second_, offset, out);
    if (second) return out.size();
    return both(std::move(ok).error(), std::move(second).error());
  }

  /// `Second` continues at the byte where `First` failed.
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    length = streamable(size(), offset, length);
    auto first = stream_inside(first_, offset, length, sink);
    if (first.status) return {};
    report_(std::as_const(first.status).error());
    auto second = stream_inside(second_, offset + first.bytes, length - first.bytes, sink);
    if (second.status) return {};
    return both(std::move(first.status).error(), std::move(second.status).error());
  }

  /// Whether either is.
  [[nodiscard]] bool is_remote() const {
    return erofs_oci::is_remote(first_) || erofs_oci::is_remote(second_);
  }

  [[nodiscard]] std::string describe() const {
    return erofs_oci::describe(first_) + " or else " + erofs_oci::describe(second_);
  }
  /// @}

 private:
  Fallback(First first, Second second, Report report) noexcept
      : first_(std::move(first)), second_(std::move(second)), report_(std::move(report)) {}

  [[nodiscard]] static tl::unexpected<Error> both(Error first, Error second) {
    auto const passes = is_transient(first) && !is_transient(second);
    auto const& kept = passes ? first : second;
    auto const& other = passes ? second : first;
    return fail(Error{kept.code, kept.context + " (and the other copy: " + other.message() + ")",
                      kept.retry_after});
  }

  First first_;
  Second second_;
  [[no_unique_address]] Report report_;
};

}  // namespace erofs_oci
