// SPDX-License-Identifier: Apache-2.0
/// @file
/// Waiting with a deadline, for descriptors and for conditions without one.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <span>
#include <thread>

#include <poll.h>

#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// poll(2) until something is ready or the deadline has passed; a signal does not end it. Yields
/// whether something is. Looks once if the deadline has passed already.
/// @error{an errno, as poll(2)}
[[nodiscard]] inline Result<bool> poll_until(std::span<pollfd> fds,
                                             std::chrono::steady_clock::time_point deadline) {
  for (;;) {
    auto const left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    // An hour at a time: a far deadline must not overflow.
    auto const wait = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
    auto const n = ::poll(fds.data(), fds.size(), wait);
    if (n > 0) return true;
    if (n < 0 && errno != EINTR) return fail_errno(errno, "poll");
    if (n == 0 && left.count() <= wait) return false;
  }
}

/// Calls `is_so` every few milliseconds until it yields true or the time is over; yields its last
/// result. For conditions that no descriptor shows.
template <class Condition>
[[nodiscard]] bool wait_for(std::chrono::milliseconds longest, Condition const& is_so,
                            std::chrono::milliseconds pause = std::chrono::milliseconds(10)) {
  auto const end = std::chrono::steady_clock::now() + longest;
  while (!is_so()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(pause);
  }
  return true;
}

}  // namespace erofs_oci
