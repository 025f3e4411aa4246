// SPDX-License-Identifier: Apache-2.0
/// @file
/// Retry: reads again after transient failures, as often as a RetryPolicy says.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/backoff.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/stream_exact.hpp>

namespace erofs_oci {

/// Reads `Inner` again while `Policy` says so and the pause before it is not stopped.
///
/// @par Thread safety
/// All const members, from any thread; a read that pauses holds up no other.
template <RandomAccessSource Inner, RetryPolicy Policy = Backoff, Clock Time = SteadyClock>
class Retry {
 public:
  /// Bytes that a stream must bring before the policy starts to count anew: so many that a source
  /// which gives little and breaks off cannot hold the reader of a span for long.
  static constexpr std::uint64_t progress = 1024 * 1024;

  /// Owns all three.
  explicit Retry(Inner inner, Policy policy = {}, Time time = {})
      : inner_(std::move(inner)), policy_(std::move(policy)), time_(std::move(time)) {}

  /// @name RandomAccessSource
  /// @{

  /// Returns the last error once the policy gives up, or a stop is asked for (see SteadyClock).
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const begin = time_.now();
    for (unsigned attempt = 0;; ++attempt) {
      auto n = inner_.read_at(offset, out);
      if (n || !pauses(attempt, n.error(), begin)) return explained(std::move(n), attempt);
    }
  }

  /// Continues at the next byte after an error. Attempts and time are counted from the last one
  /// that brought `progress` bytes, so a long stream is not lost to a few errors far apart.
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    length = streamable(size(), offset, length);
    auto begin = time_.now();
    for (unsigned attempt = 0;; ++attempt) {
      auto streamed = stream_inside(inner_, offset, length, sink);
      if (streamed.status) return {};
      offset += streamed.bytes;
      length -= streamed.bytes;
      if (length == 0) return {};
      if (streamed.bytes >= progress) {
        attempt = 0;
        begin = time_.now();
      }
      if (!pauses(attempt, streamed.status.error(), begin)) {
        return explained(std::move(streamed.status), attempt);
      }
    }
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

 private:
  // Whether there is another attempt; lets the pause before it pass.
  [[nodiscard]] bool pauses(unsigned attempt, Error const& error,
                            std::chrono::steady_clock::time_point begin) const {
    auto const elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(time_.now() - begin);
    auto const pause = policy_.next(attempt, error, elapsed);
    return pause && time_.sleep(*pause);
  }

  template <class T>
  [[nodiscard]] static Result<T> explained(Result<T> result, unsigned attempt) {
    if (result || attempt == 0) return result;
    return fail(std::move(result).error(),
                "gave up after " + std::to_string(attempt + 1) + " attempts");
  }

  Inner inner_;
  [[no_unique_address]] Policy policy_;
  [[no_unique_address]] Time time_;
};

}  // namespace erofs_oci
