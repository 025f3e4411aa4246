// SPDX-License-Identifier: Apache-2.0
/// @file
/// FailFast: answers a read that repeats one that has just failed with the same error, at once.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

/// Remembers which ranges of `Inner` could not be read, and gives the same error for any part of
/// them, until nobody has asked for one for `pause`, or `longest` has passed since the failure;
/// then the layer below is asked again. A kernel answers the failure of one long request by asking
/// for each of its pages: without this, each takes its whole time. Only transient errors are
/// remembered (see is_transient()), and only of the last 16 ranges.
///
/// @par Thread safety
/// All const members, from any thread; no lock is held while the layer below works.
template <RandomAccessSource Inner, Clock Time = SteadyClock>
class FailFast {
 public:
  /// @param inner    owned from here on
  /// @param pause    how long a failure counts since it was last asked for. Default: 250 ms; 0 is
  /// never
  /// @param longest  how long it counts at most. Default: 2 s
  explicit FailFast(Inner inner, std::chrono::milliseconds pause = std::chrono::milliseconds(250),
                    std::chrono::milliseconds longest = std::chrono::seconds(2), Time time = {})
      : inner_(std::move(inner)),
        pause_(pause),
        longest_(longest),
        time_(std::move(time)),
        failures_(std::make_unique<Failures>()) {}

  /// @name RandomAccessSource
  /// @{

  /// @error{as Inner, as there}
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const n = readable(size(), offset, out.size());
    if (auto known = find(offset, n)) return fail(*std::move(known));
    auto done = inner_.read_at(offset, out);
    if (!done && is_transient(done.error())) remember(offset, n, done.error());
    return done;
  }

  /// As the layer below; failures of streams are neither remembered nor looked for.
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    return erofs_oci::stream(inner_, offset, length, sink);
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

  /// As the layer below.
  [[nodiscard]] std::string describe() const { return erofs_oci::describe(inner_); }

 private:
  struct Failure {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    std::chrono::steady_clock::time_point until{};
    std::chrono::steady_clock::time_point latest{};  // `until` goes no further
    std::optional<Error> error{};                    // none: nothing yet
  };
  struct Failures {
    std::mutex mutex;
    std::array<Failure, 16> list{};
    std::size_t next = 0;
  };

  [[nodiscard]] std::optional<Error> find(std::uint64_t offset, std::uint64_t length) const {
    if (length == 0) return std::nullopt;
    std::lock_guard const lock(failures_->mutex);
    for (auto& one : failures_->list) {
      if (!one.error || offset < one.begin || offset + length > one.end) continue;
      auto const now = time_.now();
      if (now >= one.until) continue;
      one.until = std::min(now + pause_, one.latest);
      return one.error;
    }
    return std::nullopt;
  }

  void remember(std::uint64_t offset, std::uint64_t length, Error const& error) const {
    std::lock_guard const lock(failures_->mutex);
    auto const now = time_.now();
    failures_->list[failures_->next] = {offset, offset + length, now + std::min(pause_, longest_),
                                        now + longest_, error};
    failures_->next = (failures_->next + 1) % failures_->list.size();
  }

  Inner inner_;
  std::chrono::milliseconds pause_;
  std::chrono::milliseconds longest_;
  [[no_unique_address]] Time time_;
  std::unique_ptr<Failures> failures_;
};

}  // namespace erofs_oci
