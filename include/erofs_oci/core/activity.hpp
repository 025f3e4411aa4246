// SPDX-License-Identifier: Apache-2.0
/// @file
/// Activity: how much work is under way, and whether any of it gets done.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <utility>

#include <erofs_oci/core/clock.hpp>

namespace erofs_oci {

/// Counts work that begins on some threads and ends on others, for who has to tell a server that is
/// slow from one that does nothing any more.
///
/// @par Thread safety
/// All members, from any thread.
template <Clock Time = SteadyClock>
class Activity {
 public:
  explicit Activity(Time time = {}) : time_(std::move(time)) {}

  /// One more piece of work is under way.
  void begin() noexcept {
    if (count_.fetch_add(1) == 0) touch();
  }

  /// One piece of work is done, well or not.
  void end() noexcept {
    touch();
    count_.fetch_sub(1);
  }

  [[nodiscard]] std::size_t under_way() const noexcept { return count_.load(); }

  /// Since when there has been work and none of it was done; 0 while there is none.
  [[nodiscard]] std::chrono::milliseconds stalled() const noexcept {
    if (under_way() == 0) return std::chrono::milliseconds(0);
    auto const since = std::chrono::milliseconds(touched_.load());
    auto const now = time_.now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::milliseconds>(now) - since;
  }

 private:
  void touch() noexcept {
    auto const now = time_.now().time_since_epoch();
    touched_.store(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
  }

  [[no_unique_address]] Time time_;
  std::atomic<std::size_t> count_{0};
  std::atomic<std::chrono::milliseconds::rep> touched_{0};
};

}  // namespace erofs_oci
