// SPDX-License-Identifier: Apache-2.0
/// @file
/// DemandGate: lets those that fetch ahead wait while reads fetch.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <stop_token>
#include <utility>

namespace erofs_oci {

/// Counts fetches that reads wait for. Who fetches ahead begins nothing while there are any.
///
/// @par Thread safety
/// All members, from any thread.
class DemandGate {
 public:
  /// A fetch for a read, as long as this lives.
  class Demand {
   public:
    Demand() noexcept = default;
    Demand(Demand&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Demand& operator=(Demand&& other) noexcept {
      std::swap(gate_, other.gate_);
      return *this;
    }
    ~Demand() {
      if (gate_ != nullptr) gate_->leave();
    }

   private:
    friend DemandGate;
    explicit Demand(DemandGate& gate) noexcept : gate_(&gate) {}

    DemandGate* gate_ = nullptr;
  };

  /// Begins a fetch for a read; never waits. The gate must outlive what it yields.
  [[nodiscard]] Demand enter() {
    std::lock_guard const lock(mutex_);
    ++count_;
    return Demand(*this);
  }

  /// Waits until no read fetches, for `most` at most. False: `stop` was requested before.
  [[nodiscard]] bool wait_for(std::chrono::milliseconds most, std::stop_token const& stop) {
    std::unique_lock lock(mutex_);
    static_cast<void>(free_.wait_for(lock, stop, most, [this] { return count_ == 0; }));
    return !stop.stop_requested();
  }

  /// Waits until no read fetches. False: `stop` was requested before.
  [[nodiscard]] bool wait(std::stop_token const& stop) {
    std::unique_lock lock(mutex_);
    return free_.wait(lock, stop, [this] { return count_ == 0; }) && !stop.stop_requested();
  }

 private:
  void leave() noexcept {
    std::lock_guard const lock(mutex_);
    if (--count_ == 0) free_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable_any free_;
  std::size_t count_ = 0;
};

}  // namespace erofs_oci
