// SPDX-License-Identifier: Apache-2.0
/// @file
/// StartRecorder: notes what reads need of an image's layers in the first minute.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/gzip/find_checkpoints.hpp>
#include <erofs_oci/image/start_list.hpp>

namespace erofs_oci {

/// Makes a StartList of what ImageReadOptions::on_need tells, and notes what on_read tells, from
/// its construction on for a minute.
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
    if (is_over()) return;
    std::lock_guard const lock(mutex_);
    list_.add({layer, begin, end});
  }

  /// Notes that a read has got bytes [begin, end) of a layer's decoded stream, as needed() does.
  void read(Digest const& layer, std::uint64_t begin, std::uint64_t end) {
    if (is_over()) return;
    std::lock_guard const lock(mutex_);
    auto& reads = reads_[layer];
    if (!reads.empty() && begin >= reads.back().begin && begin <= reads.back().end) {
      reads.back().end = std::max(reads.back().end, end);
    } else if (reads.size() < most_reads) {
      reads.push_back({begin, end});
    }
  }

  /// What was noted so far.
  [[nodiscard]] StartList list() const {
    std::lock_guard const lock(mutex_);
    return list_;
  }

  /// What reads have got of a layer, in order; empty: too much was noted to tell, or nothing.
  [[nodiscard]] std::vector<ByteRange> reads(Digest const& layer) const {
    std::lock_guard const lock(mutex_);
    auto const found = reads_.find(layer);
    if (found == reads_.end() || found->second.size() == most_reads) return {};
    return found->second;
  }

 private:
  static constexpr std::size_t most_reads = 1 << 15;  // of a layer

  [[nodiscard]] bool is_over() {
    if (over_.load(std::memory_order_relaxed)) return true;
    if (time_.now() < until_) return false;
    over_.store(true, std::memory_order_relaxed);
    return true;
  }

  Time const time_;
  std::chrono::steady_clock::time_point const until_;
  std::atomic<bool> over_{false};
  mutable std::mutex mutex_;
  StartList list_;
  std::map<Digest, std::vector<ByteRange>> reads_;
};

}  // namespace erofs_oci
