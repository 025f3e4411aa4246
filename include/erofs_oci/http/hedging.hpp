// SPDX-License-Identifier: Apache-2.0
/// @file
/// Hedging: which requests are so slow to be answered that a second one is sent.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace erofs_oci {

/// Learns how long each host takes to begin its answers, and allows a second request where that
/// takes longer than 95 of 100 do, for at most one request in 20. Makes no request and does not
/// wait.
///
/// @par Thread safety
/// All members, from any thread.
class Hedging {
 public:
  using Duration = std::chrono::steady_clock::duration;

  /// Never sooner, however fast a host is.
  static constexpr std::chrono::milliseconds least{50};
  /// Answers of a host that must have been seen before a request to it is sent twice.
  static constexpr std::size_t fewest = 20;
  /// The latest answers of a host that count.
  static constexpr std::size_t most = 128;
  /// Requests for each that may be sent twice.
  static constexpr std::uint64_t share = 20;
  /// Hosts that are remembered; one more, and all are learned anew.
  static constexpr std::size_t most_hosts = 64;

  struct Counts {
    std::uint64_t requests = 0;  ///< that might have been sent twice
    std::uint64_t sent = 0;      ///< second ones
    std::uint64_t won = 0;       ///< of these, whose answer came first

    Counts& operator+=(Counts const& more) noexcept {
      requests += more.requests;
      sent += more.sent;
      won += more.won;
      return *this;
    }

    friend bool operator==(Counts const&, Counts const&) = default;
  };

  /// Counts a request to a host.
  /// @return how long to wait for its answer before a second one is sent; empty: none is
  [[nodiscard]] std::optional<Duration> begin(std::string const& host) {
    std::lock_guard const lock(mutex_);
    ++counts_.requests;
    credit_ = std::min(credit_ + 1, most_credit);
    auto const found = hosts_.find(host);
    if (found == hosts_.end() || found->second.seen < fewest) return std::nullopt;
    auto times = found->second.times;
    auto const n = std::min<std::size_t>(found->second.seen, most);
    auto const nth = times.begin() + static_cast<std::ptrdiff_t>(n * 95 / 100);
    std::nth_element(times.begin(), nth, times.begin() + static_cast<std::ptrdiff_t>(n));
    return std::max<Duration>(*nth, least);
  }

  /// An answer has begun so long after its request, or that after which a second one was faster.
  void note(std::string const& host, Duration time) {
    std::lock_guard const lock(mutex_);
    if (hosts_.size() >= most_hosts && !hosts_.contains(host)) hosts_.clear();
    auto& known = hosts_[host];
    known.times[known.seen++ % most] = time;
  }

  /// Whether a second request may be sent now, and counts it.
  [[nodiscard]] bool spend() {
    std::lock_guard const lock(mutex_);
    if (credit_ < share) return false;
    credit_ -= share;
    ++counts_.sent;
    return true;
  }

  /// A second request's answer came first.
  void won() {
    std::lock_guard const lock(mutex_);
    ++counts_.won;
  }

  [[nodiscard]] Counts counts() const {
    std::lock_guard const lock(mutex_);
    return counts_;
  }

 private:
  static constexpr std::uint64_t most_credit = 5 * share;  // what a quiet hour saves is no burst

  struct Known {
    std::array<Duration, most> times{};
    std::size_t seen = 0;
  };

  mutable std::mutex mutex_;
  Counts counts_;
  std::uint64_t credit_ = 0;
  std::map<std::string, Known> hosts_;
};

}  // namespace erofs_oci
