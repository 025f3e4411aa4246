// SPDX-License-Identifier: Apache-2.0
/// @file
/// MemoryRelease: when the caches of an image give memory back, and how much, decided without I/O.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

namespace erofs_oci {

/// When memory is given back.
struct MemoryReleaseOptions {
  /// Time without a read after which it is given back. 0: never for that reason. Default: 30 s.
  std::chrono::milliseconds quiet{30'000};

  /// Bytes that may stay then. Default: 1 MiB.
  std::uint64_t after_quiet = 1 << 20;

  /// Bytes that the machine's need leaves in any case. Default: 16 MiB.
  std::uint64_t in_need = 16 << 20;

  /// Least time between two releases for the machine's need. Default: 1 s.
  std::chrono::milliseconds pause{1'000};

  /// The machine is in need if programs waited for memory during more than one part in so many of
  /// the time between two looks. Range: 1 or more. Default: 10.
  unsigned share = 10;
};

/// What a MemoryRelease looks at.
struct MemorySight {
  std::uint64_t reads = 0;  ///< that have ended so far
  std::uint64_t held = 0;   ///< bytes in the caches now
  /// Time that programs of this machine have waited for memory so far; empty: it is not known.
  std::optional<std::chrono::microseconds> waited{};
};

/// Decides by the time of the last read and by the machine's need: when nobody has read for a
/// while, all but a little goes, once until somebody reads again; while the machine is in need,
/// half of what is held goes at each look. Not thread-safe.
class MemoryRelease {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  /// @param now  when it begins to look
  explicit MemoryRelease(TimePoint now, MemoryReleaseOptions options = {}) noexcept
      : options_(options), last_read_(now) {}

  /// Takes a look, once a second or so.
  /// @param now  not before that of the last look
  /// @return bytes that the caches shall hold at most from now on; empty: nothing is to be done
  [[nodiscard]] std::optional<std::uint64_t> look(TimePoint now,
                                                  MemorySight const& sight) noexcept {
    if (std::exchange(reads_, sight.reads) != sight.reads) {
      last_read_ = now;
      gave_ = false;
    }
    auto const need = is_in_need(now, sight.waited);
    if (!gave_ && options_.quiet.count() > 0 && now - last_read_ >= options_.quiet) {
      gave_ = true;
      return options_.after_quiet;
    }
    auto const is_late = !last_need_ || now - *last_need_ >= options_.pause;
    if (!need || !is_late || sight.held <= options_.in_need) return std::nullopt;
    last_need_ = now;
    return std::max(options_.in_need, sight.held / 2);
  }

 private:
  struct Waited {
    TimePoint at;
    std::chrono::microseconds sum;
  };

  [[nodiscard]] bool is_in_need(TimePoint now,
                                std::optional<std::chrono::microseconds> waited) noexcept {
    auto const before = waited_;
    waited_ = waited ? std::optional(Waited{now, *waited}) : std::nullopt;
    if (!before || !waited || *waited <= before->sum) return false;
    auto const time = std::chrono::duration_cast<std::chrono::microseconds>(now - before->at);
    return *waited - before->sum > time / options_.share;
  }

  MemoryReleaseOptions options_;
  TimePoint last_read_;
  std::uint64_t reads_ = 0;
  bool gave_ = false;  // since the last read
  std::optional<TimePoint> last_need_;
  std::optional<Waited> waited_;  // at the last look
};

}  // namespace erofs_oci
