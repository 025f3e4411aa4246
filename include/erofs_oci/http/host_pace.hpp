// SPDX-License-Identifier: Apache-2.0
/// @file
/// HostPace: which hosts are to get a pause, and until when.
#pragma once

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <string>

#include <erofs_oci/source/http_response.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {

/// Remembers Retry-After of 429 and 503 by host, for all who use the host. Of hosts that answer 429
/// without one, the first pause is `first`, and each further one twice as long. Makes no request
/// and does not wait.
///
/// @par Thread safety
/// All members, from any thread.
class HostPace {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  /// A host that asks for more is asked again after this.
  static constexpr std::chrono::milliseconds longest{60'000};
  /// @name Pauses that no host has asked for
  /// @{
  static constexpr std::chrono::milliseconds first{250};
  static constexpr std::chrono::milliseconds most{15'000};
  /// @}

  /// Takes in the head of a response that `host` has sent.
  void note(std::string const& host, HttpHead const& head, TimePoint now) {
    auto const refuses = head.status == 429 || head.status == 503;
    auto const value = refuses ? head.find("Retry-After") : std::nullopt;
    auto const asked = value ? parse_retry_after(*value) : std::nullopt;
    auto const says_when = asked && asked->count() > 0;
    std::lock_guard const lock(mutex_);
    if (!says_when && head.status != 429) {
      if (!refuses && head.status < 400) forgive(host, now);
      return;
    }
    // Refusals are counted until nothing has come of a host for `longest`.
    std::erase_if(hosts_, [now](auto const& one) { return one.second.end + longest <= now; });
    auto& pause = hosts_[host];
    // Those of requests that were under way together count as one.
    if (!says_when && now < pause.end) return;
    auto const length = says_when ? std::min(*asked, longest)
                                  : std::min(first * (1 << std::min(pause.refusals++, 8u)), most);
    if (now + length > pause.end) pause.end = now + length, pause.length = length;
  }

  /// When a request to `host` may be sent; none: at once. Up to a tenth later than the end of its
  /// pause, at random, so that those who wait do not come together.
  [[nodiscard]] std::optional<TimePoint> turn(std::string const& host, TimePoint now) const {
    std::lock_guard const lock(mutex_);
    auto const found = hosts_.find(host);
    if (found == hosts_.end() || found->second.end <= now) return std::nullopt;
    std::uniform_int_distribution<std::chrono::milliseconds::rep> more(
        0, found->second.length.count() / 10);
    std::random_device random;
    return found->second.end + std::chrono::milliseconds(more(random));
  }

 private:
  struct Pause {
    TimePoint end{};
    std::chrono::milliseconds length{};
    unsigned refusals = 0;  // in a row, that did not say when to come again
  };

  /// The host answers: its next refusal is its first. A pause that it is in still holds.
  void forgive(std::string const& host, TimePoint now) {
    auto const found = hosts_.find(host);
    if (found == hosts_.end()) return;
    found->second.refusals = 0;
    if (found->second.end <= now) hosts_.erase(found);
  }

  mutable std::mutex mutex_;
  std::map<std::string, Pause> hosts_;
};

}  // namespace erofs_oci
