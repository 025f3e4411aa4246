// SPDX-License-Identifier: Apache-2.0
/// @file
/// Checked: finds the layer that breaks the laws, where it breaks them.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

/// Called with a text about a law that a source has broken, from any thread.
template <class R>
concept ViolationReport = std::movable<R> && std::invocable<R const&, std::string const&>;

/// Prints the violation and aborts, in debug builds; does nothing under NDEBUG.
struct AbortInDebug {
  void operator()([[maybe_unused]] std::string const& violation) const noexcept {
#ifndef NDEBUG
    std::fprintf(stderr, "erofs_oci: broken source: %s\n", violation.c_str());
    std::abort();
#endif
  }
};

/// Reads as `Inner` and reports each result that the laws S1 and S5 do not allow; the caller gets
/// an error, too, so that wrong results go no further. Put it between two layers of a stack while
/// looking for a bug.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource Inner, ViolationReport Report = AbortInDebug>
class Checked {
 public:
  /// Owns both.
  explicit Checked(Inner inner, Report report = {})
      : inner_(std::move(inner)), size_(inner_.size()), report_(std::move(report)) {}

  /// @name RandomAccessSource
  /// @{

  /// @error{Errc::truncated, `Inner` gives too few bytes}
  /// @error{Errc::protocol, `Inner` breaks another law}
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto n = inner_.read_at(offset, out);
    auto const expected = readable(size_, offset, out.size());
    if (inner_.size() != size_) return violated(Errc::protocol, "S2: the size has changed");
    if (!n) return judged(n.error(), offset, out.size());
    if (*n == expected) return n;
    return violated(*n < expected ? Errc::truncated : Errc::protocol,
                    "S1: read of " + std::to_string(out.size()) + " bytes at offset " +
                        std::to_string(offset) + " yields " + std::to_string(*n) + ", not " +
                        std::to_string(expected));
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    auto const expected = streamable(size_, offset, length);
    std::uint64_t got = 0;
    bool stopped = false;
    bool deaf = false;
    auto const watch = [&](std::span<std::byte const> piece) {
      deaf = deaf || stopped;
      if (stopped || piece.size() > expected - got) stopped = true;
      got += piece.size();
      if (!stopped) stopped = !sink(piece);
      return !stopped;
    };
    auto ok = erofs_oci::stream(inner_, offset, length, watch);
    if (deaf) return violated(Errc::protocol, "stream: goes on after its sink has stopped it");
    if (!ok && stopped) return violated(Errc::protocol, "stream: a stop by the sink is an error");
    if (!ok) return judged(ok.error(), offset, length);
    if (got > expected || (!stopped && got < expected)) {
      return violated(got < expected ? Errc::truncated : Errc::protocol,
                      "S1: stream of " + std::to_string(length) + " bytes at offset " +
                          std::to_string(offset) + " yields " + std::to_string(got) + ", not " +
                          std::to_string(expected));
    }
    return ok;
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

 private:
  [[nodiscard]] tl::unexpected<Error> violated(Errc code, std::string const& words) const {
    auto text = erofs_oci::describe(inner_) + ": " + words;
    report_(std::as_const(text));
    return fail(code, std::move(text));
  }

  // An error must say something, and reading nothing, or past the end, must not be one.
  [[nodiscard]] tl::unexpected<Error> judged(Error const& error, std::uint64_t offset,
                                             std::uint64_t length) const {
    if (!error.code) return violated(Errc::protocol, "S5: an error without a code");
    if (streamable(size_, offset, length) > 0) return fail(error);
    return violated(Errc::protocol, "S1: reading nothing at offset " + std::to_string(offset) +
                                        " is an error: " + error.message());
  }

  Inner inner_;
  std::uint64_t size_;
  [[no_unique_address]] Report report_;
};

}  // namespace erofs_oci
