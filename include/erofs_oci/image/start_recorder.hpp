// SPDX-License-Identifier: Apache-2.0
/// @file
/// StartRecorder: notes what reads need of an image's layers in the first minute.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <utility>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/image/start_list.hpp>

namespace erofs_oci {

/// Makes a StartList of what ImageReadOptions::on_need tells, from its construction on for a
/// minute.
///
/// @par Thread safety
/// All members, from any thread.
template <Clock Time = SteadyClock>
class StartRecorder {
 public:
  /// @param length  how long it notes. Default: 60 s
  explicit StartRecorder(std::chrono::milliseconds length = std::chrono::minutes(1), Time time = {})
      : time_(std::move(time)), until_(time_.now() + length) {}

  /// Notes bytes [begin, end) of a layer's blob, if the time is not over. Cheap afterwards.
  void needed(Digest const& layer, std::uint64_t begin, std::uint64_t end) {
    if (over_.load(std::memory_order_relaxed)) return;
    if (time_.now() >= until_) {
      over_.store(true, std::memory_order_relaxed);
      return;
    }
    std::lock_guard const lock(mutex_);
    list_.add({layer, begin, end});
  }

  /// What was noted so far.
  [[nodiscard]] StartList list() const {
    std::lock_guard const lock(mutex_);
    return list_;
  }

 private:
  Time const time_;
  std::chrono::steady_clock::time_point const until_;
  std::atomic<bool> over_{false};
  mutable std::mutex mutex_;
  StartList list_;
};

}  // namespace erofs_oci
