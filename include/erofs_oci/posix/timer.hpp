// SPDX-License-Identifier: Apache-2.0
/// @file
/// Timer: time that passes, as a descriptor to poll.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <utility>

#include <sys/timerfd.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// A timerfd(2) of the monotonic clock.
///
/// @par Thread safety
/// None: one thread, which polls.
class Timer {
 public:
  using Duration = std::chrono::nanoseconds;

  /// None: fd() is -1, which poll(2) leaves out.
  Timer() = default;

  /// One that does not run yet.
  /// @error{an errno, as timerfd_create(2)}
  [[nodiscard]] static Result<Timer> open() {
    UniqueFd fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!fd) return fail_errno(errno, "timer");
    return Timer(std::move(fd));
  }

  /// To poll for POLLIN: a time has passed.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  /// Has it run until this has passed, more than 0.
  /// @error{an errno, as timerfd_settime(2)}
  [[nodiscard]] Result<void> once(Duration time) const { return set(time, Duration::zero()); }

  /// Has it run until this has passed, again and again.
  /// @error{as once()}
  [[nodiscard]] Result<void> every(Duration time) const { return set(time, time); }

  /// Makes it unreadable until the next time has passed.
  void clear() const noexcept {
    std::uint64_t count = 0;
    [[maybe_unused]] auto const n = ::read(fd_.get(), &count, sizeof count);
  }

 private:
  explicit Timer(UniqueFd fd) noexcept : fd_(std::move(fd)) {}

  [[nodiscard]] static timespec parts(Duration time) noexcept {
    auto const seconds = std::chrono::floor<std::chrono::seconds>(time);
    return {static_cast<std::time_t>(seconds.count()), static_cast<long>((time - seconds).count())};
  }

  [[nodiscard]] Result<void> set(Duration first, Duration then) const {
    itimerspec const times{parts(then), parts(first)};
    if (::timerfd_settime(fd_.get(), 0, &times, nullptr) != 0) return fail_errno(errno, "timer");
    return {};
  }

  UniqueFd fd_;
};

}  // namespace erofs_oci
