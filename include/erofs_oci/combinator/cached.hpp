// SPDX-License-Identifier: Apache-2.0
/// @file
/// Cached: keeps chunks of a source in memory, and fetches each once however many ask.
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
#include <erofs_oci/combinator/stream_exact.hpp>
#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

/// How a Cached source caches.
struct CacheOptions {
  /// Most bytes kept. Chunks on their way come on top, one for each reader that fetches; a chunk
  /// that is larger than this serves its readers and is not kept. Default: 64 MiB.
  std::uint64_t capacity = 64 * 1024 * 1024;

  /// Bytes in a chunk. Default, 0: the granularity of the source, or the least multiple of it that
  /// is 64 KiB or more.
  std::uint64_t chunk = 0;

  /// How long a read waits for a chunk that another one is fetching. Default: 30 s.
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
        chunk_(chunk_size(inner_, options)),
        wait_(std::min<std::chrono::milliseconds>(options.wait, std::chrono::hours(24))),
        table_(std::make_unique<Table>(options.capacity, std::move(policy))) {}

  /// @name RandomAccessSource
  /// @{

  /// @error{Errc::timed_out, another reader's fetch takes longer than CacheOptions::wait}
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    out = out.first(readable(size(), offset, out.size()));
    std::size_t done = 0;
    auto const copy = [&](std::span<std::byte const> piece) {
      std::ranges::copy(piece, out.begin() + static_cast<std::ptrdiff_t>(done));
      done += piece.size();
      return true;
    };
    auto ok = walk(offset, out.size(), copy);
    if (!ok) return fail(std::move(ok).error());
    return done;
  }

  /// One inner stream for each run of missing chunks, fetched to the end of the last one begun.
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    return walk(offset, streamable(size(), offset, length), sink);
  }

  /// Asks `Inner` for whole chunks.
  void prefetch(std::uint64_t offset, std::uint64_t length) const {
    auto const n = streamable(size(), offset, length);
    if (n == 0) return;
    auto const begin = offset - offset % chunk_;
    erofs_oci::prefetch(inner_, begin, end_of((offset + n - 1) / chunk_) - begin);
  }

  /// The chunk.
  [[nodiscard]] std::uint64_t granularity() const noexcept { return chunk_; }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return inner_; }

  /// What has happened so far.
  [[nodiscard]] CacheStats stats() const { return table_->stats(); }

 private:
  using Table = ChunkTable<Policy>;

  class Fetch;

  static std::uint64_t chunk_size(Inner const& inner, CacheOptions const& options) {
    if (options.chunk > 0) return options.chunk;
    constexpr std::uint64_t least = 64 * 1024;
    auto const unit = std::max<std::uint64_t>(erofs_oci::granularity(inner), 1);
    return align_up(std::max(unit, least), unit).value_or(unit);
  }

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
      auto piece = chunk.wait_for(from, to, deadline);
      if (!piece) return fail(std::move(piece).error());
      if (!sink(*piece)) return {};
      from += piece->size();
    }
    return {};
  }

  Inner inner_;
  std::uint64_t chunk_;
  std::chrono::milliseconds wait_;
  std::unique_ptr<Table> table_;
};

/// Fetches a run of chunks with one stream, holding the claim on one of them at a time: the next
/// one is claimed in the moment in which the one before is kept. Whatever happens, no claim is
/// left.
template <RandomAccessSource Inner, Eviction Policy>
class Cached<Inner, Policy>::Fetch {
 public:
  Fetch(Cached const& cache, std::uint64_t index, typename Table::ChunkPtr chunk) noexcept
      : cache_(cache), index_(index), chunk_(std::move(chunk)) {}

  Fetch(Fetch const&) = delete;
  Fetch& operator=(Fetch const&) = delete;

  ~Fetch() {
    if (chunk_) give_up({make_error_code(Errc::unavailable), "another reader gave up", {}});
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
      return chunk_ != nullptr;
    };
    auto streamed = stream_inside(cache_.inner_, begin, cache_.end_of(last_) - begin, take);
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
    stopped_ = !sink(
        piece.subspan(static_cast<std::size_t>(from - at), static_cast<std::size_t>(to - from)));
  }

  // Keeps the full chunk; goes on to the next one if that is still for us to fetch.
  void next() {
    if (index_ == last_ || stopped_) {
      cache_.table_->keep(index_);
      chunk_ = nullptr;
      return;
    }
    chunk_ = cache_.table_->keep_and_claim_next(index_, cache_.bytes_in(index_ + 1));
    ++index_;
  }

  void give_up(Error const& error) {
    chunk_ = nullptr;
    cache_.table_->abandon(index_, error);
  }

  Cached const& cache_;
  std::uint64_t index_;             // of chunk_
  typename Table::ChunkPtr chunk_;  // the claim; null once there is none
  std::uint64_t last_ = 0;          // the last chunk of the run
  bool stopped_ = false;            // by the sink
};

}  // namespace erofs_oci
