// SPDX-License-Identifier: Apache-2.0
/// @file
/// LinkEstimate: round trip and bandwidth to a server, from the answers that it gave.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace erofs_oci {

/// Estimates the bandwidth-delay product of the way to a server: the bytes that it could have sent
/// in the time that a request waits for its first one. Makes no request.
///
/// @par Thread safety
/// All members, from any thread.
class LinkEstimate {
 public:
  using Duration = std::chrono::nanoseconds;

  /// An answer that begins sooner comes from a disk or from the same machine, and is not counted.
  static constexpr Duration shortest_wait = std::chrono::milliseconds(1);
  /// Of a shorter answer the bandwidth cannot be told, and it is not counted.
  static constexpr std::uint64_t fewest_bytes = 128 * 1024;

  /// Notes one answer, of which the first bytes came after `wait`, and `bytes` more in the time
  /// `rest` from then on.
  void note(Duration wait, std::uint64_t bytes, Duration rest) noexcept {
    if (wait < shortest_wait || bytes < fewest_bytes || rest <= Duration::zero()) return;
    std::lock_guard const lock(mutex_);
    waits_[answers_ % kept] = seconds(wait);
    bandwidths_[answers_ % kept] = static_cast<double>(bytes) / seconds(rest);
    ++answers_;
    if (answers_ < fewest_answers) return;
    auto const count = std::min(answers_, kept);
    product_ = static_cast<std::uint64_t>(median(waits_, count) * median(bandwidths_, count));
  }

  /// Bytes: the median of the waits of the last 8 answers times that of their bandwidths. 0: not
  /// known yet, since fewer than 3 were counted.
  [[nodiscard]] std::uint64_t delay_product() const noexcept { return product_; }

 private:
  static constexpr std::size_t kept = 8;
  static constexpr std::size_t fewest_answers = 3;
  using Values = std::array<double, kept>;

  static double seconds(Duration time) noexcept {
    return std::chrono::duration<double>(time).count();
  }

  static double median(Values values, std::size_t count) noexcept {
    auto const middle = values.begin() + static_cast<std::ptrdiff_t>(count / 2);
    std::nth_element(values.begin(), middle, values.begin() + static_cast<std::ptrdiff_t>(count));
    return *middle;
  }

  std::mutex mutex_;
  Values waits_{};       // seconds
  Values bandwidths_{};  // bytes a second
  std::size_t answers_ = 0;
  std::atomic<std::uint64_t> product_{0};
};

}  // namespace erofs_oci
