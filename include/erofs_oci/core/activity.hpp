// SPDX-License-Identifier: Apache-2.0
/// @file
/// Activity: counts operations in progress and tells since when none has ended.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <erofs_oci/core/clock.hpp>

namespace erofs_oci {

/// Counts operations in flight, so that a watchdog can tell a slow server from a stuck one.
///
/// @par Thread safety
/// All members, from any thread.
template <Clock Time = SteadyClock>
class Activity {
 public:
  explicit Activity(Time time = {}) : time_(std::move(time)) {}

  /// Begins an operation; at most 2^20 - 1 may be in progress.
  void begin() noexcept {
    auto before = state_.load();
    while (!state_.compare_exchange_weak(before,
                                         count_of(before) == 0 ? at_present(1) : before + 1)) {}
  }

  /// Ends an operation, successful or not.
  void end() noexcept {
    auto before = state_.load();
    while (!state_.compare_exchange_weak(before, at_present(count_of(before) - 1))) {}
  }

  [[nodiscard]] std::size_t under_way() const noexcept { return count_of(state_.load()); }

  /// Since when operations have been in progress and none has ended; 0 while there is none.
  [[nodiscard]] std::chrono::milliseconds stalled() const noexcept {
    auto const state = state_.load();
    if (count_of(state) == 0) return std::chrono::milliseconds(0);
    return now() - std::chrono::milliseconds(state >> count_bits);
  }

 private:
  static constexpr unsigned count_bits = 20;

  [[nodiscard]] static std::size_t count_of(std::uint64_t state) noexcept {
    return static_cast<std::size_t>(state & ((std::uint64_t{1} << count_bits) - 1));
  }

  [[nodiscard]] std::chrono::milliseconds now() const noexcept {
    return std::chrono::duration_cast<std::chrono::milliseconds>(time_.now().time_since_epoch());
  }

  [[nodiscard]] std::uint64_t at_present(std::size_t count) const noexcept {
    return static_cast<std::uint64_t>(now().count()) << count_bits | count;
  }

  [[no_unique_address]] Time time_;
  // The time in milliseconds and the count in one value: no thread sees one without the other.
  std::atomic<std::uint64_t> state_{0};
};

/// Decides how long a server's main loop may wait, and what it tells the supervisor about its next
/// sign.
///
/// Both come from one observation. If the loop sampled its work once for the sign "busy, the next
/// sign comes soon" and again to choose its wait, work that ends in between would make it wait
/// long, and the supervisor would kill it as hung.
///
/// @par Thread safety
/// None: the loop's thread.
class TickRhythm {
 public:
  static constexpr std::chrono::milliseconds busy_tick{20};
  static constexpr std::chrono::milliseconds idle_tick{1000};

  /// Looks.
  /// @return whether work is under way: the next tick then comes within `busy_tick`
  template <Clock Time>
  bool look(Activity<Time> const& work) noexcept {
    return promised_ = work.under_way() != 0;
  }

  /// How long to wait for anything else until the next tick: no longer than was promised, and less
  /// if work has begun since.
  template <Clock Time>
  [[nodiscard]] std::chrono::milliseconds wait(Activity<Time> const& work) const noexcept {
    return promised_ || work.under_way() != 0 ? busy_tick : idle_tick;
  }

 private:
  bool promised_ = false;
};

}  // namespace erofs_oci
