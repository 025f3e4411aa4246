// SPDX-License-Identifier: Apache-2.0
/// @file
/// RetryPolicy and Backoff: whether and when something that failed is tried again.
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <optional>
#include <random>

#include <erofs_oci/core/result.hpp>

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

}  // namespace erofs_oci
