// SPDX-License-Identifier: Apache-2.0
/// @file
/// Retry: reads again after transient failures; RetryPolicy and Backoff decide how often.
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/stream_exact.hpp>

namespace erofs_oci {

/// Says whether attempt number `n` (from 0), which ended in `error` when `elapsed` had passed since
/// attempt 0 began, is followed by another, and after which pause.
template <class P>
concept RetryPolicy = std::movable<P> && requires(P const& policy, unsigned n, Error const& error,
                                                  std::chrono::milliseconds elapsed) {
  { policy.next(n, error, elapsed) } -> std::same_as<std::optional<std::chrono::milliseconds>>;
};

/// 100 ms, 200 ms, 400 ms, ... between attempts, for transient errors only. Waits as long as the
/// peer asks for, unless that is longer than the remaining time.
struct Backoff {
  unsigned attempts = 5;                       ///< in all; 1 means never retry
  std::chrono::milliseconds first_pause{100};  ///< doubles each time
  std::chrono::milliseconds most_pause{5000};  ///< upper limit of the doubled pause
  std::chrono::milliseconds total{30'000};     ///< no attempt begins later than this
  double jitter = 0.25;  ///< each pause is shorter by up to this part of it, 0 to 1, at random

  /// RetryPolicy.
  [[nodiscard]] std::optional<std::chrono::milliseconds> next(
      unsigned n, Error const& error, std::chrono::milliseconds elapsed) const {
    if (n + 1 >= attempts || !is_transient(error)) return std::nullopt;
    auto pause = std::min(first_pause, most_pause);
    for (unsigned i = 0; i < n && pause < most_pause; ++i) pause = std::min(2 * pause, most_pause);
    pause = std::max(shortened(pause), error.retry_after.value_or(std::chrono::milliseconds(0)));
    if (elapsed >= total || pause > total - elapsed) return std::nullopt;
    return pause;
  }

 private:
  // Clients that failed together must not come back together.
  [[nodiscard]] std::chrono::milliseconds shortened(std::chrono::milliseconds pause) const {
    if (jitter <= 0 || pause.count() <= 0) return pause;
    auto const part = std::min(jitter, 1.0) * static_cast<double>(pause.count());
    std::uniform_int_distribution<std::int64_t> less(0, static_cast<std::int64_t>(part));
    std::random_device random;
    return pause - std::chrono::milliseconds(less(random));
  }
};

static_assert(RetryPolicy<Backoff>);

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
