// SPDX-License-Identifier: Apache-2.0
/// @file
/// GzranPool: memory and threads that several Gzrans share.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <erofs_oci/core/workers.hpp>

namespace erofs_oci {

/// Decoded bytes are kept in chunks of this many, so that a span can grow without moving and a
/// large one can let go of its start.
inline constexpr std::size_t gzip_chunk_size = 256 * 1024;

/// A bound on the memory of all spans of some Gzrans together, and the threads that fetch for them.
/// When it is full, the span that nobody has used for longest goes, whosever it is. Keeps chunks
/// for reuse: a page fault costs more than decoding into a warm page.
///
/// @par Thread safety
/// All members, from any thread.
class GzranPool {
 public:
  /// One Gzran's part in letting go of memory.
  struct Member {
    /// When the span that it would let go of was last used; empty if it holds none that is unused.
    std::function<std::optional<std::uint64_t>()> oldest;
    /// Lets go of that span.
    std::function<void()> drop_oldest;
  };

  /// @param cache_bytes  most bytes held, spans in use aside. Range: 1 MiB or more
  /// @param threads      spans that are fetched or decoded in the background at the same time
  explicit GzranPool(std::uint64_t cache_bytes, unsigned threads = 8)
      : cache_bytes_(std::max<std::uint64_t>(cache_bytes, 1 << 20)), threads_(threads) {}

  GzranPool(GzranPool const&) = delete;
  GzranPool& operator=(GzranPool const&) = delete;

  /// The bound that was given.
  [[nodiscard]] std::uint64_t cache_bytes() const noexcept { return cache_bytes_; }

  /// Bytes in use: chunks and compressed bytes.
  [[nodiscard]] std::uint64_t used() const noexcept {
    return used_.load(std::memory_order_relaxed);
  }

  /// Counts bytes held elsewhere, and gives them back.
  void add(std::uint64_t bytes) noexcept { used_.fetch_add(bytes, std::memory_order_relaxed); }
  void subtract(std::uint64_t bytes) noexcept { used_.fetch_sub(bytes, std::memory_order_relaxed); }

  /// A time that rises with each call, to tell which span was used longest ago.
  [[nodiscard]] std::uint64_t tick() noexcept {
    return ticks_.fetch_add(1, std::memory_order_relaxed);
  }

  /// The threads; started when first asked for.
  [[nodiscard]] Workers& workers() {
    std::call_once(workers_once_, [this] { workers_ = std::make_unique<Workers>(threads_, 1024); });
    return *workers_;
  }

  /// How many there are.
  [[nodiscard]] unsigned threads() const noexcept { return threads_; }

  /// A chunk of gzip_chunk_size bytes, not cleared, whose destruction brings it back to `pool`.
  [[nodiscard]] static std::shared_ptr<std::byte> take(std::shared_ptr<GzranPool> const& pool) {
    Chunk chunk;
    {
      std::lock_guard const lock(pool->free_mutex_);
      if (!pool->free_.empty()) {
        chunk = std::move(pool->free_.back());
        pool->free_.pop_back();
      }
    }
    if (chunk == nullptr) chunk = std::make_unique_for_overwrite<std::byte[]>(gzip_chunk_size);
    pool->add(gzip_chunk_size);
    return {chunk.release(), [pool](std::byte* bytes) { pool->give(Chunk(bytes)); }};
  }

  /// Takes part until leave(). Its functions are called by shrink(), by any thread.
  [[nodiscard]] std::list<Member>::iterator join(Member member) {
    std::lock_guard const lock(members_mutex_);
    return members_.insert(members_.end(), std::move(member));
  }

  /// Ends what join() began; none of the member's functions runs afterwards.
  void leave(std::list<Member>::iterator member) {
    std::lock_guard const lock(members_mutex_);
    members_.erase(member);
  }

  /// Lets go of spans until the bound holds, or all that are left are in use. The one used last of
  /// all stays, as who reads in sequence comes back to it.
  void shrink() {
    while (used() > cache_bytes_) {
      std::lock_guard const lock(members_mutex_);
      Member* victim = nullptr;
      auto oldest = std::numeric_limits<std::uint64_t>::max();
      for (auto& member : members_) {
        auto const age = member.oldest();
        if (!age || *age >= oldest) continue;
        oldest = *age;
        victim = &member;
      }
      if (victim == nullptr || oldest + 1 >= ticks_.load(std::memory_order_relaxed)) return;
      victim->drop_oldest();
    }
  }

 private:
  using Chunk = std::unique_ptr<std::byte[]>;

  void give(Chunk chunk) {
    subtract(gzip_chunk_size);
    std::lock_guard const lock(free_mutex_);
    auto const free = (free_.size() + 1) * gzip_chunk_size;
    if (used() + free <= cache_bytes_) free_.push_back(std::move(chunk));
  }

  std::uint64_t const cache_bytes_;
  unsigned const threads_;
  std::atomic<std::uint64_t> used_{0};
  std::atomic<std::uint64_t> ticks_{0};

  std::mutex free_mutex_;
  std::vector<Chunk> free_;

  std::mutex members_mutex_;
  std::list<Member> members_;

  std::once_flag workers_once_;
  std::unique_ptr<Workers> workers_;
};

}  // namespace erofs_oci
