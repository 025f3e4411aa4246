// SPDX-License-Identifier: Apache-2.0
/// @file
/// Which faults occurred in all runs, and how often one had an effect that the product had to meet.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace simulation {

/// Every kind of fault. Up to `last_of_exchange` they are of one HTTP exchange.
enum class Fault : std::uint8_t {
  none,
  refused,          ///< no connection
  mirror_down,      ///< the mirror refuses for a while
  forbidden,        ///< 403 without a challenge
  rate_limit,       ///< 429 with Retry-After in seconds
  rate_limit_date,  ///< 429 with Retry-After as a date
  unavailable,      ///< 503
  server_error,     ///< 500
  not_found,        ///< 404 for what is there
  redirect_loop,    ///< a redirect to itself
  no_location,      ///< a redirect without a place
  wrong_range,      ///< 206 for other bytes than were asked for
  no_range,         ///< 206 without Content-Range
  whole_body,       ///< 200 for a range
  short_range,      ///< 206 for fewer bytes than were asked for, and so declared
  long_body,        ///< more bytes than Content-Range says
  early_end,        ///< the body ends early, without an error of the connection
  cut_body,         ///< the connection breaks at any byte of the body
  drip,             ///< the body comes slower than any limit allows
  slow_body,        ///< the body comes slowly, but within the limits of rate and pauses
  stall,            ///< nothing comes any more
  flipped_bit,      ///< one bit of the body is wrong
  wrong_size,       ///< Content-Range names another size of the object
  packed,           ///< a Content-Encoding
  last_of_exchange = packed,
  expired_token,      ///< 401 to a token that was good before
  expired_login_403,  ///< 403 to such a token
  login_down,         ///< the token server answers 503
  login_garbage,      ///< the token server answers nonsense
  expired_url,        ///< 403 from a place that the registry had redirected to
  poisoned,           ///< the blob itself has changed, everywhere and for good
  disk_full,          ///< ENOSPC
  disk_broken,        ///< EIO
  short_write,
  crash_on_disk,  ///< the process is killed before or after a step
  leftover,       ///< such a crash has left a half-written entry
  kill_opening,   ///< a worker is killed while it opens the image
  kill_idle,      ///< while it has no request
  kill_reading,   ///< while it has requests
  hang,           ///< a worker gives no sign any more
  count,
};

inline constexpr std::array<std::string_view, static_cast<std::size_t>(Fault::count)> fault_names{
    "none",
    "refused",
    "mirror down",
    "403",
    "429, seconds",
    "429, date",
    "503",
    "500",
    "404",
    "redirect loop",
    "no Location",
    "wrong range",
    "no range",
    "200 for 206",
    "short range",
    "long body",
    "early end",
    "cut body",
    "drip",
    "slow body",
    "stall",
    "flipped bit",
    "wrong size",
    "packed",
    "expired token, 401",
    "expired token, 403",
    "login down",
    "login garbage",
    "expired URL",
    "poisoned blob",
    "ENOSPC",
    "EIO",
    "short write",
    "crash on disk",
    "leftover in the store",
    "kill, opening",
    "kill, idle",
    "kill, reading",
    "hang"};

/// Counts of one kind.
struct FaultCount {
  std::uint64_t occurred = 0;
  std::uint64_t effects = 0;  ///< it was refused, asked again for, or seen as an error
};

/// Counts of all.
struct Coverage {
  std::array<FaultCount, static_cast<std::size_t>(Fault::count)> counts{};

  FaultCount& of(Fault fault) { return counts[static_cast<std::size_t>(fault)]; }
  void occurred(Fault fault) { ++of(fault).occurred; }
  void effect(Fault fault) { ++of(fault).effects; }
};

}  // namespace simulation
