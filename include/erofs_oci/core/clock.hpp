// SPDX-License-Identifier: Apache-2.0
/// @file
/// Time and sleep as policies, so that no test waits.
#pragma once

#include <chrono>
#include <concepts>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stop_token>

namespace erofs_oci {

/// Tells a monotonic time and lets time pass. sleep() says whether it has: not if a stop was asked
/// for.
template <class C>
concept Clock = std::copyable<C> && requires(C const& clock, std::chrono::milliseconds pause) {
  { clock.now() } -> std::same_as<std::chrono::steady_clock::time_point>;
  { clock.sleep(pause) } -> std::same_as<bool>;
};

/// The machine's monotonic clock.
struct SteadyClock {
  std::stop_token stop{};  ///< ends all sleeps, those that will be begun included. Default: none

  [[nodiscard]] std::chrono::steady_clock::time_point now() const noexcept {
    return std::chrono::steady_clock::now();
  }
  /// Clock.
  bool sleep(std::chrono::milliseconds pause) const {
    std::mutex mutex;
    std::condition_variable_any never;
    std::unique_lock lock(mutex);
    never.wait_for(lock, stop, pause, [] { return false; });
    return !stop.stop_requested();
  }
};

/// A clock that only a test moves; copies share one time. sleep() advances it and returns at once.
///
/// @par Thread safety
/// All members, from any thread.
class ManualClock {
 public:
  /// Starts at the epoch.
  ManualClock() : state_(std::make_shared<State>()) {}

  /// The time that was set.
  [[nodiscard]] std::chrono::steady_clock::time_point now() const {
    std::lock_guard const lock(state_->mutex);
    return state_->now;
  }

  /// Moves the clock forward.
  bool sleep(std::chrono::milliseconds pause) const {
    std::lock_guard const lock(state_->mutex);
    state_->now += pause;
    return true;
  }

 private:
  struct State {
    std::mutex mutex;
    std::chrono::steady_clock::time_point now{};
  };
  std::shared_ptr<State> state_;
};

static_assert(Clock<SteadyClock> && Clock<ManualClock>);

}  // namespace erofs_oci
