// SPDX-License-Identifier: Apache-2.0
/// @file
/// GzranPool: memory, threads and knowledge of the link that several Gzrans share.
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

#include <erofs_oci/core/thread_pool.hpp>
#include <erofs_oci/gzip/demand_gate.hpp>
#include <erofs_oci/gzip/link_estimate.hpp>

namespace erofs_oci {

/// Decoded bytes are kept in chunks of this many, so that a span can grow without moving and a
/// large one can let go of its start.
inline constexpr std::size_t gzip_chunk_size = 256 * 1024;

/// A bound on the memory of all spans of some Gzrans together, and the threads that fetch for them.
/// When it is full, it drops the span that was used longest ago, of any layer. Keeps chunks for
/// reuse: a page fault costs more than decoding into a warm page. Those count, too.
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
      : cache_bytes_(std::max<std::uint64_t>(cache_bytes, 1 << 20)), threads_(threads) {
    constexpr std::uint64_t most_free = 4096;  // chunks for reuse, 1 GiB
    free_.reserve(static_cast<std::size_t>(std::min(cache_bytes_ / gzip_chunk_size, most_free)));
  }

  GzranPool(GzranPool const&) = delete;
  GzranPool& operator=(GzranPool const&) = delete;

  /// The bound that was given.
  [[nodiscard]] std::uint64_t cache_bytes() const noexcept { return cache_bytes_; }

  /// Bytes in use: chunks and compressed bytes.
  [[nodiscard]] std::uint64_t used() const noexcept {
    return used_.load(std::memory_order_relaxed);
  }

  /// All bytes held: those in use, what decoders need, and chunks for reuse.
  [[nodiscard]] std::uint64_t held() const {
    std::lock_guard const lock(free_mutex_);
    return in_spans() + free_.size() * gzip_chunk_size;
  }

  /// Counts bytes held elsewhere, and gives them back.
  void add(std::uint64_t bytes) noexcept { used_.fetch_add(bytes, std::memory_order_relaxed); }
  void subtract(std::uint64_t bytes) noexcept { used_.fetch_sub(bytes, std::memory_order_relaxed); }

  /// Counts a decoder that a span keeps, and one that it gives up.
  void add_decoder() noexcept { decoders_.fetch_add(1, std::memory_order_relaxed); }
  void subtract_decoder() noexcept { decoders_.fetch_sub(1, std::memory_order_relaxed); }

  /// A time that rises with each call, to tell which span was used longest ago.
  [[nodiscard]] std::uint64_t tick() noexcept {
    return ticks_.fetch_add(1, std::memory_order_relaxed);
  }

  /// The threads; started when first asked for.
  [[nodiscard]] ThreadPool& workers() {
    std::call_once(workers_once_,
                   [this] { workers_ = std::make_unique<ThreadPool>(threads_, 1024); });
    return *workers_;
  }

  /// How many there are.
  [[nodiscard]] unsigned threads() const noexcept { return threads_; }

  /// Counts the fetches for reads of all Gzrans that share this.
  [[nodiscard]] DemandGate& gate() noexcept { return gate_; }

  /// What their fetches have shown of the link to the server of their blobs.
  [[nodiscard]] LinkEstimate& link() noexcept { return link_; }

  /// @name Fetches in the background
  /// One that a read waits for comes before what others fetch ahead of reads.
  /// @{

  /// Notes one that gets a thread, or waits for one.
  void begin_fetch() noexcept {
    if (fetching_.fetch_add(1) >= threads_) lacking_.fetch_add(1);
  }

  /// Notes its end.
  /// @param gave_way  as give_way() had told it to
  void end_fetch(bool gave_way) noexcept {
    fetching_.fetch_sub(1);
    if (!gave_way) static_cast<void>(give_way());  // its thread takes the next one
  }

  /// Whether a thread is free. If not, nothing is to be fetched ahead.
  [[nodiscard]] bool has_free_thread() const noexcept { return fetching_.load() < threads_; }

  /// Whether a fetch waits for a thread.
  [[nodiscard]] bool lacks_thread() const noexcept { return lacking_.load() > 0; }

  /// Whether the caller is the one that ends its fetch for one that waits.
  [[nodiscard]] bool give_way() noexcept {
    auto lacking = lacking_.load();
    while (lacking > 0 && !lacking_.compare_exchange_weak(lacking, lacking - 1)) {}
    return lacking > 0;
  }
  /// @}

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
  /// all stays, since a sequential reader comes back to it.
  void shrink() {
    drop_spans(cache_bytes_, Last::stays);
    drop_free(cache_bytes_);
  }

  /// Lets go of spans, those used longest ago first, and of chunks for reuse, until no more than
  /// `bytes` are held, or all spans that are left are in use. Reads under way and later ones go on;
  /// what was let go is fetched and decoded again.
  void shrink_to(std::uint64_t bytes) {
    drop_spans(bytes, Last::goes);
    drop_free(bytes);
  }

 private:
  using Chunk = std::unique_ptr<std::byte[]>;

  // An inflater's tables and window, which all spans have that are not decoded to their end.
  static constexpr std::uint64_t decoder_bytes = 96 * 1024;

  // Whether the span that was used last may be let go.
  enum class Last { stays, goes };

  [[nodiscard]] std::uint64_t in_spans() const noexcept {
    return used() + decoders_.load(std::memory_order_relaxed) * decoder_bytes;
  }

  void drop_spans(std::uint64_t most, Last last) {
    while (in_spans() > most) {
      std::lock_guard const lock(members_mutex_);
      Member* victim = nullptr;
      auto oldest = std::numeric_limits<std::uint64_t>::max();
      for (auto& member : members_) {
        auto const age = member.oldest();
        if (!age || *age >= oldest) continue;
        oldest = *age;
        victim = &member;
      }
      if (victim == nullptr) return;
      if (last == Last::stays && oldest + 1 >= ticks_.load(std::memory_order_relaxed)) return;
      victim->drop_oldest();
    }
  }

  void drop_free(std::uint64_t most) {
    for (;;) {
      Chunk chunk;  // ends after the lock
      std::lock_guard const lock(free_mutex_);
      if (free_.empty() || in_spans() + free_.size() * gzip_chunk_size <= most) return;
      chunk = std::move(free_.back());
      free_.pop_back();
    }
  }

  // Called by a deleter, so it takes no memory: the room in `free_` was made by the constructor.
  void give(Chunk chunk) noexcept {
    subtract(gzip_chunk_size);
    std::lock_guard const lock(free_mutex_);
    auto const free = (free_.size() + 1) * gzip_chunk_size;
    if (free_.size() < free_.capacity() && in_spans() + free <= cache_bytes_) {
      free_.push_back(std::move(chunk));
    }
  }

  std::uint64_t const cache_bytes_;
  unsigned const threads_;
  std::atomic<std::uint64_t> used_{0};
  std::atomic<std::uint64_t> decoders_{0};
  std::atomic<std::uint64_t> ticks_{0};
  std::atomic<unsigned> fetching_{0};
  std::atomic<unsigned> lacking_{0};  // threads, for fetches that wait, and for which none ends

  std::mutex mutable free_mutex_;
  std::vector<Chunk> free_;

  std::mutex members_mutex_;
  std::list<Member> members_;

  DemandGate gate_;
  LinkEstimate link_;
  std::once_flag workers_once_;
  std::unique_ptr<ThreadPool> workers_;
};

}  // namespace erofs_oci
