// SPDX-License-Identifier: Apache-2.0
/// @file
/// ChunkTable: the chunks that a cache holds and those that are being fetched.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>

#include <erofs_oci/combinator/eviction.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// A run of bytes that one thread fills from the front while others read what is there.
///
/// @par Thread safety
/// append() and fail_with() from the one filling thread; the rest from any.
class GrowingChunk {
 public:
  /// @param size  bytes when full; they are allocated with the first append()
  explicit GrowingChunk(std::size_t size) noexcept : size_(size) {}

  /// Bytes when full.
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  /// Bytes that are missing. For the filling thread.
  [[nodiscard]] std::size_t missing() const noexcept { return size_ - filled_; }

  /// Adds bytes, at most missing(), and wakes waiting readers.
  void append(std::span<std::byte const> piece) {
    if (filled_ == 0) bytes_.resize(size_);
    std::ranges::copy(piece, bytes_.begin() + static_cast<std::ptrdiff_t>(filled_));
    {
      std::lock_guard const lock(mutex_);
      filled_ += piece.size();
    }
    grown_.notify_all();
  }

  /// No more bytes will come; wakes everyone.
  void fail_with(Error error) noexcept {
    {
      std::lock_guard const lock(mutex_);
      error_ = std::move(error);
    }
    grown_.notify_all();
  }

  /// Waits until there is a byte at `from`; yields those [from, to) that are there by then. They
  /// stay where they are as long as the chunk lives.
  /// @error{Errc::timed_out, `deadline` passed}
  /// @error{that of fail_with(), the byte will not come}
  [[nodiscard]] Result<std::span<std::byte const>> wait_for(
      std::size_t from, std::size_t to, std::chrono::steady_clock::time_point deadline) const {
    std::unique_lock lock(mutex_);
    auto const in_time =
        grown_.wait_until(lock, deadline, [&] { return filled_ > from || error_.has_value(); });
    if (!in_time) return fail(Errc::timed_out, "waiting for another reader's fetch");
    if (filled_ <= from) {
      return fail(*error_, error_->context.empty() ? "another reader gave up" : "");
    }
    return std::span(bytes_).subspan(from, std::min(to, filled_) - from);
  }

 private:
  std::size_t size_;
  mutable std::mutex mutex_;
  mutable std::condition_variable grown_;
  Bytes bytes_;             // the first filled_ never change again
  std::size_t filled_ = 0;  // written under the lock by one thread, which may read it without
  std::optional<Error> error_;
};

/// What a cache has done so far.
struct CacheStats {
  std::uint64_t hits = 0;       ///< look-ups that found a whole chunk
  std::uint64_t joins = 0;      ///< look-ups that found a chunk on its way
  std::uint64_t misses = 0;     ///< chunks fetched, or begun to be
  std::uint64_t evictions = 0;  ///< chunks given up for room
  std::uint64_t chunks = 0;     ///< whole chunks held now
  std::uint64_t bytes = 0;      ///< in those
};

/// Chunks by number. The first caller that asks for a missing chunk must fill it (`claimed`); all
/// others wait for it.
///
/// @par Thread safety
/// All members, from any thread.
template <Eviction Policy>
class ChunkTable {
 public:
  using ChunkPtr = std::shared_ptr<GrowingChunk>;  // shared: readers outlast an eviction

  /// A chunk, and whether the caller is the one who must fill it.
  struct Found {
    ChunkPtr chunk;
    bool claimed;
  };

  /// @param capacity  most bytes held in whole chunks
  ChunkTable(std::uint64_t capacity, Policy policy)
      : capacity_(capacity), policy_(std::move(policy)) {}

  /// The chunk `index`; a new one of `size` bytes, claimed by the caller, if there is none.
  [[nodiscard]] Found find(std::uint64_t index, std::size_t size) {
    std::lock_guard const lock(mutex_);
    auto const place = entries_.find(index);
    if (place == entries_.end()) return {claim(index, size), true};
    auto& entry = place->second;
    if (entry.whole) policy_.touched(index);
    ++(entry.whole ? stats_.hits : stats_.joins);
    return {entry.chunk, false};
  }

  /// Keeps a chunk that its claimer has filled, at the cost of others.
  void keep(std::uint64_t index) {
    std::lock_guard const lock(mutex_);
    keep_locked(index);
  }

  /// keep(), then claims the next chunk unless it is held or being fetched, in one step.
  [[nodiscard]] ChunkPtr keep_and_claim_next(std::uint64_t index, std::size_t next_size) {
    std::lock_guard const lock(mutex_);
    keep_locked(index);
    return entries_.contains(index + 1) ? nullptr : claim(index + 1, next_size);
  }

  /// Releases a claim: forgets the chunk, and gives `error` to all readers that wait for it. Does
  /// nothing to a chunk that is kept already.
  void abandon(std::uint64_t index, Error error) noexcept {
    ChunkPtr chunk;
    {
      std::lock_guard const lock(mutex_);
      auto const place = entries_.find(index);
      if (place == entries_.end() || place->second.whole) return;
      chunk = std::move(place->second.chunk);
      entries_.erase(place);
    }
    chunk->fail_with(std::move(error));
  }

  /// How many chunks from `index` on, up to `last`, are neither there nor on their way. The chunk
  /// `index` itself counts in any case.
  [[nodiscard]] std::uint64_t missing_run(std::uint64_t index, std::uint64_t last) const {
    std::lock_guard const lock(mutex_);
    auto end = index + 1;
    while (end <= last && !entries_.contains(end)) ++end;
    return end - index;
  }

  /// Gives up whole chunks until at most `bytes` are held. Those that somebody reads end with that.
  void shrink_to(std::uint64_t bytes) {
    std::lock_guard const lock(mutex_);
    while (stats_.bytes > bytes && evict_one()) {}
  }

  [[nodiscard]] CacheStats stats() const {
    std::lock_guard const lock(mutex_);
    return stats_;
  }

 private:
  struct Entry {
    ChunkPtr chunk;
    bool whole = false;
  };

  ChunkPtr claim(std::uint64_t index, std::size_t size) {
    auto chunk = std::make_shared<GrowingChunk>(size);
    entries_.emplace(index, Entry{chunk, false});
    ++stats_.misses;
    return chunk;
  }

  void keep_locked(std::uint64_t index) {
    auto const place = entries_.find(index);
    auto const size = place->second.chunk->size();
    if (size > capacity_) {
      entries_.erase(place);
      return;
    }
    while (stats_.bytes + size > capacity_ && evict_one()) {}
    policy_.inserted(index, size);
    place->second.whole = true;
    ++stats_.chunks;
    stats_.bytes += size;
  }

  bool evict_one() {
    auto const victim = policy_.evict();
    if (!victim) return false;
    auto const place = entries_.find(*victim);
    if (place == entries_.end() || !place->second.whole) return true;  // left by a bad_alloc
    stats_.bytes -= place->second.chunk->size();
    --stats_.chunks;
    ++stats_.evictions;
    entries_.erase(place);
    return true;
  }

  std::uint64_t capacity_;
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, Entry> entries_;
  Policy policy_;  // knows the whole entries
  CacheStats stats_;
};

}  // namespace erofs_oci
