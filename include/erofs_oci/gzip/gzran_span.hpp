// SPDX-License-Identifier: Apache-2.0
/// @file
/// GzipSpan: one span of a gzip blob while it is fetched, decoded and kept.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/decoder.hpp>
#include <erofs_oci/gzip/gzran_pool.hpp>

namespace erofs_oci {

namespace detail {

/// What a span is, as numbers.
struct SpanPlace {
  std::size_t number = 0;
  Checkpoint start;                      ///< where decoding begins
  std::uint64_t blob_end = 0;            ///< where its compressed bytes end
  std::optional<std::uint64_t> out_end;  ///< where its decoded bytes end; unknown for the last
  [[nodiscard]] std::uint64_t blob_begin() const noexcept { return start.first_byte(); }
};

/// "span 3 (blob bytes 100 to 200)", for messages.
[[nodiscard]] inline std::string describe_span(SpanPlace const& place) {
  return "gzip span " + std::to_string(place.number) + " (blob bytes " +
         std::to_string(place.blob_begin()) + " to " + std::to_string(place.blob_end) +
         ", decoded from " + std::to_string(place.start.out) + ")";
}

}  // namespace detail

/// A span that grows. Compressed bytes arrive through push(); whoever needs decoded bytes that are
/// not there yet decodes, one thread at a time, just as far as needed, and the next goes on from
/// there. Nothing is decoded twice, and a reader near the start never waits for the end.
///
/// Compressed bytes are dropped once decoded. Of a span with more decoded bytes than `keep`, only
/// the last `keep` are held: reading further back gives an empty Copied::bytes, and the caller
/// begins the span anew.
///
/// @par Thread safety
/// All members, from any thread.
template <Inflater I>
class GzipSpan {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  /// What a call of read() found.
  enum class Found {
    bytes,    ///< all that was asked, or up to the stream's end
    waiting,  ///< no compressed bytes are there to go on with: fetch some, or wait_for_input()
    dropped,  ///< they were decoded and let go
  };

  /// @param place   which span
  /// @param window  reads the 32 KiB before it, once they are needed; must outlive the span
  /// @param pool    where its chunks come from
  /// @param keep    most decoded bytes held, at least two chunks
  GzipSpan(detail::SpanPlace place, WindowReader const& window, std::shared_ptr<GzranPool> pool,
           std::uint64_t keep)
      : place_(place),
        window_(window),
        pool_(std::move(pool)),
        keep_chunks_(static_cast<std::size_t>(
            std::max<std::uint64_t>(keep / gzip_chunk_size, std::uint64_t{2}))) {}

  GzipSpan(GzipSpan const&) = delete;
  GzipSpan& operator=(GzipSpan const&) = delete;
  ~GzipSpan() { pool_->subtract(held_); }

  /// Where it lies.
  [[nodiscard]] detail::SpanPlace const& place() const noexcept { return place_; }

  /// @name The fetching side
  /// @{

  /// Takes the right to fetch; false if someone else has it or nothing is left to fetch.
  [[nodiscard]] bool begin_fetch() {
    std::lock_guard const lock(mutex_);
    if (fetching_ || fetched_ == fetch_size() || error_) return false;
    fetching_ = true;
    return true;
  }

  /// Whether nobody has fetched anything yet.
  [[nodiscard]] bool untouched() const {
    std::lock_guard const lock(mutex_);
    return !fetching_ && fetched_ == 0;
  }

  /// The next byte of the blob to fetch.
  [[nodiscard]] std::uint64_t next_byte() const {
    std::lock_guard const lock(mutex_);
    return place_.blob_begin() + fetched_;
  }

  /// Adds the next compressed bytes. False: enough for now, more than `most_waiting` bytes wait.
  [[nodiscard]] bool push(std::span<std::byte const> bytes, std::uint64_t most_waiting) {
    std::lock_guard const lock(mutex_);
    auto const room = fetch_size() - fetched_;
    if (bytes.size() > room) bytes = bytes.first(static_cast<std::size_t>(room));
    fetched_ += bytes.size();
    if (!error_ && !bytes.empty()) {
      hold(bytes.size());
      // Few large pieces: each call of an inflater has a price of its own.
      if (input_.empty() || input_.back().size() + bytes.size() > input_piece) {
        input_.emplace_back().reserve(std::max(input_piece, bytes.size()));
      }
      input_.back().insert(input_.back().end(), bytes.begin(), bytes.end());
    }
    changed_.notify_all();
    return held_ < most_waiting;
  }

  /// Gives the right to fetch back.
  void end_fetch(std::optional<Error> error) {
    std::lock_guard const lock(mutex_);
    fetching_ = false;
    if (error && !error_) error_ = std::move(error);
    changed_.notify_all();
  }
  /// @}

  /// @name The reading side
  /// @{

  /// Copies the decoded bytes at `offset` (of the whole stream, inside this span), decoding as far
  /// as needed. Sets `n` to the number of bytes copied if Found::bytes.
  [[nodiscard]] Result<Found> read(std::uint64_t offset, std::span<std::byte> out, std::size_t& n,
                                   TimePoint deadline) {
    auto const begin = offset - place_.start.out;
    auto const end = begin + out.size();
    std::unique_lock lock(mutex_);
    for (;;) {
      if (decoded_ >= end || complete_) {
        if (all_decoded() && !complete_ && !error_ && !decoding_ && has_input()) {
          decode_some(lock, end);  // only looks whether the span really ends here
        }
        if (begin < first_kept_ * gzip_chunk_size && begin < decoded_) return Found::dropped;
        n = copy(lock, begin, out);
        return Found::bytes;
      }
      if (error_ && input_.empty()) return tl::unexpected(*error_);
      if (!decoding_ && has_input()) {
        decode_some(lock, end);
        continue;
      }
      if (!decoding_ && !fetching_) return Found::waiting;
      if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
        return fail(Errc::timed_out, detail::describe_span(place_) + ": decoded " +
                                         std::to_string(decoded_) + " bytes so far");
      }
    }
  }

  /// Decodes all that was fetched, unless someone else is at it.
  void decode_ahead() {
    std::unique_lock lock(mutex_);
    while (!error_ && !complete_ && !decoding_ && has_input()) {
      decode_some(lock, decoded_ + gzip_chunk_size);
    }
  }

  /// Whether its whole decoded content is known.
  [[nodiscard]] bool complete() const {
    std::lock_guard const lock(mutex_);
    return complete_;
  }

  /// Whether it has failed; such a span is thrown away.
  [[nodiscard]] bool failed() const {
    std::lock_guard const lock(mutex_);
    return error_.has_value();
  }

  /// Decoded bytes so far; all of them if complete().
  [[nodiscard]] std::uint64_t decoded() const {
    std::lock_guard const lock(mutex_);
    return decoded_;
  }

  /// Notes that it was used at `tick`, and tells when it was last.
  void touch(std::uint64_t tick) noexcept { last_use_.store(tick, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t last_use() const noexcept {
    return last_use_.load(std::memory_order_relaxed);
  }

  /// Counts bytes that were read from it; true when that passes a quarter of it for the first time,
  /// which tells a run from single reads.
  [[nodiscard]] bool count_served(std::uint64_t bytes) {
    if (!place_.out_end) return false;
    auto const quarter = (*place_.out_end - place_.start.out) / 4;
    auto const before = served_.fetch_add(bytes, std::memory_order_relaxed);
    return before < quarter && before + bytes >= quarter;
  }
  /// @}

 private:
  using Lock = std::unique_lock<std::mutex>;

  static constexpr std::size_t input_piece = 128 * 1024;  // bytes

  [[nodiscard]] std::uint64_t fetch_size() const noexcept {
    return place_.blob_end - place_.blob_begin();
  }

  // With the whole span fetched, an empty queue is input too: the end.
  [[nodiscard]] bool has_input() const noexcept {
    return !input_.empty() || fetched_ == fetch_size();
  }

  [[nodiscard]] bool all_decoded() const noexcept {
    return place_.out_end && decoded_ == *place_.out_end - place_.start.out;
  }

  void hold(std::uint64_t bytes) noexcept {
    held_ += bytes;
    pool_->add(bytes);
  }
  void let_go(std::uint64_t bytes) noexcept {
    held_ -= bytes;
    pool_->subtract(bytes);
  }

  // Takes hold of the chunks first, so that bytes are copied without the lock.
  std::size_t copy(Lock& lock, std::uint64_t begin, std::span<std::byte> out) {
    auto const left = begin < decoded_ ? decoded_ - begin : 0;
    auto const n = static_cast<std::size_t>(std::min<std::uint64_t>(left, out.size()));
    if (n == 0) return 0;
    auto const first = static_cast<std::size_t>(begin / gzip_chunk_size) - first_kept_;
    auto const last = static_cast<std::size_t>((begin + n - 1) / gzip_chunk_size) - first_kept_;
    std::vector<std::shared_ptr<std::byte>> const chunks(
        chunks_.begin() + static_cast<std::ptrdiff_t>(first),
        chunks_.begin() + static_cast<std::ptrdiff_t>(last) + 1);
    lock.unlock();
    auto within = static_cast<std::size_t>(begin % gzip_chunk_size);
    auto to = out.first(n);
    for (auto const& chunk : chunks) {
      auto const part = std::min(to.size(), gzip_chunk_size - within);
      std::copy_n(chunk.get() + within, part, to.data());
      to = to.subspan(part);
      within = 0;
    }
    lock.lock();
    return n;
  }

  // Decodes one piece of input, or up to decoded byte `target`. Called and left with the lock held;
  // decoding itself runs without it.
  void decode_some(Lock& lock, std::uint64_t target) {
    decoding_ = true;
    auto input = Bytes{};
    auto const at_end = input_.empty();
    if (!at_end) {
      input = std::move(input_.front());
      input_.pop_front();
    }
    auto const given = input.size();
    lock.unlock();
    auto outcome = decode_piece(input, target, at_end);
    lock.lock();
    decoding_ = false;
    if (outcome && *outcome < given) {
      let_go(*outcome);
      input.erase(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(*outcome));
      input_.push_front(std::move(input));
    } else {
      let_go(given);
    }
    if (!outcome) error_ = fail(outcome.error(), detail::describe_span(place_)).value();
    if (complete_ || !outcome) {
      decoder_.reset();
      input_.clear();
      let_go(held_);
    }
    changed_.notify_all();
  }

  // Runs without the lock, but alone. Yields the input bytes used up.
  Result<std::size_t> decode_piece(std::span<std::byte const> in, std::uint64_t target,
                                   bool at_end) {
    std::size_t used = 0;
    if (!decoder_) {
      if (in.empty()) return fail(Errc::truncated, "no compressed bytes");
      if (auto const ok = enter(in.front()); !ok) return fail(ok.error());
      used = place_.start.bits == 0 ? 0 : 1;
    }
    for (;;) {
      auto const step = decode_step(in.subspan(used));
      if (!step) return fail(step.error());
      used += step->consumed;
      bool const stuck = step->produced == 0 && used == in.size();
      if (decoder_->ended() || (stuck && at_end)) {
        if (auto const ok = finish(); !ok) return fail(ok.error());
        return used;
      }
      if (stuck || produced_ >= target) return used;
    }
  }

  Result<void> enter(std::byte first) {
    Bytes window(gzip_window_size);
    auto const fixed = std::span<std::byte, gzip_window_size>(window);
    if (auto const ok = window_(place_.number, fixed); !ok) return ok;
    decoder_ = std::make_unique<GzipDecoder<I>>();
    return decoder_->enter(place_.start.bits, first, fixed);
  }

  // One call of the decoder, into the rest of the last chunk; past the promised end into a probe
  // byte, since a span that goes on there belongs to another index.
  Result<typename GzipDecoder<I>::Step> decode_step(std::span<std::byte const> in) {
    auto const most = place_.out_end ? *place_.out_end - place_.start.out
                                     : std::numeric_limits<std::uint64_t>::max();
    if (produced_ == most) {
      std::array<std::byte, 1> probe{};
      auto const step = decoder_->decode(in, probe);
      if (step && step->produced > 0) {
        return fail(Errc::mismatch,
                    "decodes to more than the " + std::to_string(most) + " bytes of the index");
      }
      return step;
    }
    auto const within = static_cast<std::size_t>(produced_ % gzip_chunk_size);
    if (within == 0) add_chunk();
    auto const room = std::min<std::uint64_t>(gzip_chunk_size - within, most - produced_);
    auto const step =
        decoder_->decode(in, std::span(tail_.get() + within, static_cast<std::size_t>(room)));
    if (step) publish(step->produced);
    return step;
  }

  void add_chunk() {
    std::lock_guard const lock(mutex_);
    if (tail_at_ == produced_ && tail_ != nullptr) return;  // taken before, nothing written yet
    tail_ = GzranPool::take(pool_);
    tail_at_ = produced_;
    chunks_.push_back(tail_);
    while (chunks_.size() > keep_chunks_) {
      chunks_.pop_front();
      ++first_kept_;
    }
  }

  void publish(std::size_t more) {
    if (more == 0) return;
    produced_ += more;
    std::lock_guard const lock(mutex_);
    decoded_ = produced_;
    changed_.notify_all();
  }

  Result<void> finish() {
    if (place_.out_end) {
      auto const promised = *place_.out_end - place_.start.out;
      if (produced_ != promised) {
        return fail(Errc::mismatch, "decodes to " + std::to_string(produced_) + " bytes, not the " +
                                        std::to_string(promised) + " of the index");
      }
    } else if (!decoder_->may_end()) {
      return fail(Errc::truncated, "the blob ends inside a gzip member, after " +
                                       std::to_string(produced_) + " decoded bytes");
    }
    std::lock_guard const lock(mutex_);
    complete_ = true;
    tail_.reset();
    return {};
  }

  detail::SpanPlace const place_;
  WindowReader const& window_;
  std::shared_ptr<GzranPool> const pool_;
  std::size_t const keep_chunks_;

  // Only the decoding thread:
  std::unique_ptr<GzipDecoder<I>> decoder_;
  std::uint64_t produced_ = 0;
  std::uint64_t tail_at_ = 0;
  std::shared_ptr<std::byte> tail_;

  std::mutex mutable mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<std::byte>> chunks_;
  std::size_t first_kept_ = 0;  // number of chunks let go
  std::uint64_t decoded_ = 0;
  std::deque<Bytes> input_;
  std::uint64_t fetched_ = 0;
  std::uint64_t held_ = 0;  // compressed bytes in input_ and in the decoding thread's hands
  bool fetching_ = false;
  bool decoding_ = false;
  bool complete_ = false;
  std::optional<Error> error_;
  std::atomic<std::uint64_t> served_{0};
  std::atomic<std::uint64_t> last_use_{0};
};

}  // namespace erofs_oci
