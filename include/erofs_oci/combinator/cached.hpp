// SPDX-License-Identifier: Apache-2.0
/// @file
/// Cached: keeps chunks of a source in memory, and fetches each once for all readers.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/combinator/chunk_table.hpp>
#include <erofs_oci/combinator/eviction.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/stream_exact.hpp>

namespace erofs_oci {

/// How a Cached source caches.
struct CacheOptions {
  /// Most bytes kept. Chunks that are being fetched are not in this bound, one for each reader that
  /// fetches; a larger chunk is not kept. Default: 64 MiB.
  std::uint64_t capacity = 64 * 1024 * 1024;

  /// Bytes in a chunk, > 0. Default: 64 KiB.
  std::uint64_t chunk = 64 * 1024;

  /// How long a read waits for a chunk, whether another one fetches it or the read itself; without
  /// the time that sinks take. A read that fetches notices it when bytes come. Default: 30 s.
  std::chrono::milliseconds wait{30'000};
};

/// Reads as `Inner`, from memory where it can.
///
/// Bytes are fetched in whole chunks. A chunk that is on its way serves readers as it grows; it is
/// never fetched twice at a time. Neighbouring chunks that one read misses come in one stream of
/// `Inner`. No lock is held while `Inner` works or a sink is called. An error ends all reads that
/// wait for the chunk, and is not kept: the next read tries again.
///
/// A sink of stream() holds up other readers of the chunk that it is given while it runs, and must
/// not read this same source.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource Inner, Eviction Policy = Lru>
class Cached {
 public:
  /// Owns all three.
  explicit Cached(Inner inner, CacheOptions options = {}, Policy policy = {})
      : inner_(std::move(inner)),
        chunk_(std::max<std::uint64_t>(options.chunk, 1)),
        wait_(std::min<std::chrono::milliseconds>(options.wait, std::chrono::hours(24))),
        table_(std::make_unique<Table>(options.capacity, std::move(policy))) {}

  /// @name RandomAccessSource
  /// @{

  /// @error{Errc::timed_out, the fetch of a chunk takes longer than CacheOptions::wait}
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return read_by(size(), offset, out, [this](std::uint64_t at, std::uint64_t n, ByteSink sink) {
      return walk(at, n, sink);
    });
  }

  /// One inner stream for each run of missing chunks, fetched to the end of the last one begun.
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    return walk(offset, streamable(size(), offset, length), sink);
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

  /// Lets go of chunks until at most `bytes` are kept; what is let go is fetched again when it is
  /// read.
  void shrink_to(std::uint64_t bytes) const { table_->shrink_to(bytes); }

  /// What has happened so far.
  [[nodiscard]] CacheStats stats() const { return table_->stats(); }

 private:
  using Table = ChunkTable<Policy>;

  class Fetch;

  // Where chunk `index` ends; the last one ends with the source.
  [[nodiscard]] std::uint64_t end_of(std::uint64_t index) const noexcept {
    return std::min(chunk_, size() - index * chunk_) + index * chunk_;
  }

  [[nodiscard]] std::size_t bytes_in(std::uint64_t index) const noexcept {
    return static_cast<std::size_t>(end_of(index) - index * chunk_);
  }

  // Hands the bytes, all inside the source, to `sink`, chunk by chunk or run by run.
  [[nodiscard]] Result<void> walk(std::uint64_t offset, std::uint64_t length, ByteSink sink) const {
    auto const end = offset + length;
    bool stopped = false;
    auto const watch = [&](std::span<std::byte const> piece) {
      offset += piece.size();
      stopped = !sink(piece);
      return !stopped;
    };
    while (offset < end && !stopped) {
      auto const index = offset / chunk_;
      auto found = table_->find(index, bytes_in(index));
      auto ok = found.claimed ? Fetch(*this, index, std::move(found.chunk)).run(offset, end, watch)
                              : follow(*found.chunk, index, offset, end, watch);
      if (!ok) return ok;
    }
    return {};
  }

  // Hands over what a chunk holds of [offset, end), as it grows if it is on its way.
  [[nodiscard]] Result<void> follow(GrowingChunk const& chunk, std::uint64_t index,
                                    std::uint64_t offset, std::uint64_t end, ByteSink sink) const {
    auto const deadline = std::chrono::steady_clock::now() + wait_;
    auto const begin = index * chunk_;
    auto from = static_cast<std::size_t>(offset - begin);
    auto const to = static_cast<std::size_t>(std::min(end, end_of(index)) - begin);
    while (from < to) {
      EROFS_OCI_TRY_ASSIGN(auto piece, chunk.wait_for(from, to, deadline));
      if (!sink(piece)) return {};
      from += piece.size();
    }
    return {};
  }

  Inner inner_;
  std::uint64_t chunk_;
  std::chrono::milliseconds wait_;
  std::unique_ptr<Table> table_;
};

/// Fetches a run of chunks with one stream. Claims each chunk as the previous one is stored; the
/// destructor releases the current claim.
template <RandomAccessSource Inner, Eviction Policy>
class Cached<Inner, Policy>::Fetch {
 public:
  Fetch(Cached const& cache, std::uint64_t index, typename Table::ChunkPtr chunk) noexcept
      : cache_(cache),
        index_(index),
        chunk_(std::move(chunk)),
        deadline_(std::chrono::steady_clock::now() + cache.wait_) {}

  Fetch(Fetch const&) = delete;
  Fetch& operator=(Fetch const&) = delete;

  ~Fetch() {
    if (chunk_) give_up({make_error_code(Errc::unavailable), {}, {}});  // takes no memory
  }

  /// Hands [offset, end) to `sink`, or less if a later chunk turns out to be there or on its way.
  [[nodiscard]] Result<void> run(std::uint64_t offset, std::uint64_t end, ByteSink sink) {
    auto const begin = index_ * cache_.chunk_;
    last_ = index_ + cache_.table_->missing_run(index_, (end - 1) / cache_.chunk_) - 1;
    auto at = begin;
    auto const take = [&](std::span<std::byte const> piece) {
      while (!piece.empty() && chunk_) {
        auto const part = piece.first(std::min(piece.size(), chunk_->missing()));
        chunk_->append(part);
        if (!stopped_) emit(part, at, offset, end, sink);
        at += part.size();
        piece = piece.subspan(part.size());
        if (chunk_->missing() == 0) next();
      }
      if (chunk_ && std::chrono::steady_clock::now() >= deadline_) {
        give_up({make_error_code(Errc::timed_out), "the bytes come too slowly", {}});
        late_ = true;
      }
      return chunk_ != nullptr;
    };
    auto streamed = stream_inside(cache_.inner_, begin, cache_.end_of(last_) - begin, take);
    if (late_ && (stopped_ || handed_ >= end)) return {};  // all that was asked for has come
    if (late_) {
      return fail(Errc::timed_out, describe(cache_.inner_) + ": the bytes come too slowly");
    }
    if (!streamed.status) give_up(streamed.status.error());
    return std::move(streamed.status);
  }

 private:
  // The part of a piece at `at` that was asked for.
  void emit(std::span<std::byte const> piece, std::uint64_t at, std::uint64_t offset,
            std::uint64_t end, ByteSink sink) {
    auto const from = std::max(at, offset);
    auto const to = std::min(at + piece.size(), end);
    if (from >= to) return;
    auto const before = std::chrono::steady_clock::now();
    stopped_ = !sink(
        piece.subspan(static_cast<std::size_t>(from - at), static_cast<std::size_t>(to - from)));
    deadline_ += std::chrono::steady_clock::now() - before;
    handed_ = to;
  }

  // Keeps the full chunk; goes on to the next one if that is still for us to fetch.
  void next() {
    if (index_ == last_ || stopped_) {
      cache_.table_->keep(index_);
      chunk_ = nullptr;
      return;
    }
    deadline_ = std::chrono::steady_clock::now() + cache_.wait_;
    chunk_ = cache_.table_->keep_and_claim_next(index_, cache_.bytes_in(index_ + 1));
    ++index_;
  }

  void give_up(Error error) noexcept {
    chunk_ = nullptr;
    cache_.table_->abandon(index_, std::move(error));
  }

  Cached const& cache_;
  std::uint64_t index_;                             // of chunk_
  typename Table::ChunkPtr chunk_;                  // the claim; null once there is none
  std::chrono::steady_clock::time_point deadline_;  // of chunk_
  bool late_ = false;                               // given up at deadline_
  std::uint64_t handed_ = 0;                        // where the bytes end that the sink has had
  std::uint64_t last_ = 0;                          // the last chunk of the run
  bool stopped_ = false;                            // by the sink
};

}  // namespace erofs_oci
