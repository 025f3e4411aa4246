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
  /// Its decoded bytes, or more than there can be if that is unknown.
  [[nodiscard]] std::uint64_t out_size() const noexcept {
    return out_end ? *out_end - start.out : std::numeric_limits<std::uint64_t>::max();
  }
};

/// "span 3 (blob bytes 100 to 200)", for messages.
[[nodiscard]] inline std::string describe_span(SpanPlace const& place) {
  return "gzip span " + std::to_string(place.number) + " (blob bytes " +
         std::to_string(place.blob_begin()) + " to " + std::to_string(place.blob_end) +
         ", decoded from " + std::to_string(place.start.out) + ")";
}

}  // namespace detail

/// A span that grows. Compressed bytes arrive through push(). A reader that needs bytes that are
/// not decoded yet decodes them, one thread at a time, only as far as it needs; the next reader
/// continues from there. Nothing is decoded twice, and a reader near the start never waits for the
/// end.
///
/// Compressed bytes are dropped once decoded. Of a span with more decoded bytes than `keep`, only
/// the last `keep` are held: reading further back gives Found::dropped, and the caller begins the
/// span anew.
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
  ~GzipSpan() {
    end_decoder();
    pool_->subtract(held_);
  }

  /// Where it lies.
  [[nodiscard]] detail::SpanPlace const& place() const noexcept { return place_; }

  /// @name The fetching side
  /// @{

  /// Takes the right to fetch; false if someone else has it or nothing is left to fetch.
  [[nodiscard]] bool begin_fetch() {
    std::lock_guard const lock(mutex_);
    if (!take_right()) return false;
    is_known_ = false;
    return true;
  }

  /// The same, but only if nothing was fetched yet.
  [[nodiscard]] bool begin_first_fetch() {
    std::lock_guard const lock(mutex_);
    return fetched_ == 0 && take_right();
  }

  /// The same for what was asked for before any read, as much as reads are known to need: see
  /// lacks().
  [[nodiscard]] bool begin_ahead() {
    std::lock_guard const lock(mutex_);
    if (fetched_ > 0 || !take_right()) return false;
    return is_known_ = true;
  }

  /// Whether a reader waits for bytes.
  [[nodiscard]] bool waited_for() const {
    std::lock_guard const lock(mutex_);
    return waiting_ > 0;
  }

  /// Whether the last reader that waited for bytes has given up: its deadline has passed.
  [[nodiscard]] bool given_up() const {
    std::lock_guard const lock(mutex_);
    return given_up_;
  }

  /// Whether someone has the right to fetch.
  [[nodiscard]] bool fetching() const {
    std::lock_guard const lock(mutex_);
    return fetching_;
  }

  /// Whether decoded bytes before `out` (of the whole stream) are lacking, and nobody fetches, and
  /// the blob's bytes before `needed`, which they take, have not all come. That is a guess: of what
  /// was fetched ahead, the rest is decoded before more is asked for.
  [[nodiscard]] bool lacks(std::uint64_t out, std::uint64_t needed) const {
    std::lock_guard const lock(mutex_);
    auto const wanted = std::min(out - place_.start.out, place_.out_size());
    if (is_known_ && (!in_hand_.empty() || !input_.empty())) return false;
    return !fetching_ && !complete_ && !error_ && decoded_ < wanted &&
           place_.blob_begin() + fetched_ < needed;
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
    while (!error_ && !bytes.empty()) {
      // Few large pieces, since each call of an inflater has a price of its own; but no endless
      // one, since a reader looks at its deadline between them.
      if (input_.empty() || input_.back().size() == input_piece) {
        Bytes piece;
        piece.reserve(input_piece);
        input_.push_back(std::move(piece));
      }
      auto const part = bytes.first(std::min(bytes.size(), input_piece - input_.back().size()));
      input_.back().insert(input_.back().end(), part.begin(), part.end());
      held_ += part.size();
      pool_->add(part.size());
      fetched_ += part.size();
      bytes = bytes.subspan(part.size());
    }
    fetched_ += bytes.size();
    changed_.notify_all();
    return held_ < most_waiting;
  }

  /// Gives the right to fetch back, with what came of it.
  void end_fetch(Result<void> outcome) noexcept {
    std::lock_guard const lock(mutex_);
    fetching_ = false;
    if (!outcome && !error_) error_ = std::move(outcome).error();
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
        if (decoded_ == place_.out_size() && !complete_ && !error_ && !decoding_ && has_input()) {
          decode_some(lock, end);  // only looks whether the span really ends here
          if (error_) return fail(*error_);
        }
        if (begin < first_kept_ * gzip_chunk_size && begin < decoded_) return Found::dropped;
        n = copy(lock, begin, out);
        return Found::bytes;
      }
      if (error_ && in_hand_.empty() && input_.empty()) return fail(*error_);
      auto const late = [&] {
        return fail(Errc::timed_out, detail::describe_span(place_) + ": decoded " +
                                         std::to_string(decoded_) + " bytes so far");
      };
      if (!decoding_ && has_input()) {
        decode_some(lock, end);
        auto const settled = decoded_ >= end || complete_ || error_;
        if (!settled && std::chrono::steady_clock::now() >= deadline) return late();
        continue;
      }
      if (!decoding_ && !fetching_) return Found::waiting;
      if (!wait_for_change(lock, deadline)) return late();
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

  /// How far decoding has gone.
  struct Progress {
    std::uint64_t decoded = 0;  ///< bytes, counted from the span's first one
    std::uint64_t taken = 0;    ///< up to which byte of the blob it was read for that
  };
  [[nodiscard]] Progress progress() const {
    std::lock_guard const lock(mutex_);
    return {decoded_, place_.blob_begin() + fetched_ - held_};
  }

  /// Notes that reads need it up to byte `end` of the blob; false: so much was noted before.
  [[nodiscard]] bool raise_needed(std::uint64_t end) noexcept {
    auto before = needed_.load(std::memory_order_relaxed);
    while (before < end) {
      if (needed_.compare_exchange_weak(before, end, std::memory_order_relaxed)) return true;
    }
    return false;
  }

  /// Notes that it was used at `tick`, and tells when it was last.
  void touch(std::uint64_t tick) noexcept { last_use_.store(tick, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t last_use() const noexcept {
    return last_use_.load(std::memory_order_relaxed);
  }

  /// Counts bytes that were read from it; true when that passes a quarter of it for the first time,
  /// which tells a run from single reads.
  [[nodiscard]] bool count_served(std::uint64_t bytes) {
    auto const quarter = place_.out_size() / 4;
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

  // Called with the lock held.
  [[nodiscard]] bool take_right() noexcept {
    if (fetching_ || fetched_ == fetch_size() || error_) return false;
    given_up_ = false;  // the reader that gave up waited for an earlier fetch
    return fetching_ = true;
  }

  // With the whole span fetched, an empty queue is input too: the end.
  [[nodiscard]] bool has_input() const noexcept {
    return !in_hand_.empty() || !input_.empty() || fetched_ == fetch_size();
  }

  // False: the deadline has passed.
  bool wait_for_change(Lock& lock, TimePoint deadline) {
    ++waiting_;
    given_up_ = false;
    auto const in_time = changed_.wait_until(lock, deadline) == std::cv_status::no_timeout;
    --waiting_;
    given_up_ = !in_time && waiting_ == 0;
    return in_time;
  }

  void let_go(std::uint64_t bytes) noexcept {
    held_ -= bytes;
    pool_->subtract(bytes);
  }

  void end_decoder() noexcept {
    if (std::exchange(decoder_, nullptr) != nullptr) pool_->subtract_decoder();
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
    if (in_hand_.empty() && !input_.empty()) {
      in_hand_ = std::move(input_.front());
      input_.pop_front();
    }
    lock.unlock();
    auto outcome = decode_or_fail(in_hand_, target);
    lock.lock();
    decoding_ = false;
    bool const failed = !outcome;
    if (!failed) {
      let_go(*outcome);
      in_hand_.erase(in_hand_.begin(), in_hand_.begin() + static_cast<std::ptrdiff_t>(*outcome));
    } else {
      error_ = std::move(outcome).error();
    }
    if (complete_ || failed) {
      end_decoder();
      in_hand_ = {};
      input_.clear();
      let_go(held_);
    }
    changed_.notify_all();
  }

  // As decode_piece(), but an exception is an error too: it would leave `decoding_` set and readers
  // waiting.
  Result<std::size_t> decode_or_fail(std::span<std::byte const> in, std::uint64_t target) noexcept {
    return without_throwing([&]() -> Result<std::size_t> {
      EROFS_OCI_TRY_ASSIGN(auto const used, decode_piece(in, target),
                           detail::describe_span(place_));
      return used;
    });
  }

  // Runs without the lock, but alone. Yields the input bytes used up. No input: the end.
  Result<std::size_t> decode_piece(std::span<std::byte const> in, std::uint64_t target) {
    std::size_t used = 0;
    if (!decoder_) {
      if (in.empty()) return fail(Errc::truncated, "no compressed bytes");
      EROFS_OCI_TRY(enter(in.front()));
      used = place_.start.bits == 0 ? 0 : 1;
    }
    for (;;) {
      EROFS_OCI_TRY_ASSIGN(auto const step, decode_step(in.subspan(used)));
      used += step.consumed;
      bool const stuck = step.produced == 0 && used == in.size();
      if (decoder_->ended() || (stuck && in.empty())) {
        EROFS_OCI_TRY(finish());
        return used;
      }
      if (stuck || produced_ >= target) return used;
    }
  }

  Result<void> enter(std::byte first) {
    Bytes window(gzip_window_size);
    auto const fixed = std::span<std::byte, gzip_window_size>(window);
    EROFS_OCI_TRY(window_(place_.number, fixed));
    decoder_ = std::make_unique<GzipDecoder<I>>();
    pool_->add_decoder();
    return decoder_->enter(place_.start.bits, first, fixed);
  }

  // One call of the decoder, into the rest of the last chunk; past the promised end into a probe
  // byte, since a span that goes on there belongs to another index.
  Result<typename GzipDecoder<I>::Step> decode_step(std::span<std::byte const> in) {
    auto const most = place_.out_size();
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
    if (step && step->produced > 0) {
      produced_ += step->produced;
      std::lock_guard const lock(mutex_);
      decoded_ = produced_;
      changed_.notify_all();
    }
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

  Result<void> finish() {
    if (place_.out_end) {
      if (produced_ != place_.out_size()) {
        return fail(Errc::mismatch, "decodes to " + std::to_string(produced_) + " bytes, not the " +
                                        std::to_string(place_.out_size()) + " of the index");
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
  Bytes in_hand_;  // what decoding has of it; the decoding thread's alone while there is one
  std::uint64_t fetched_ = 0;
  std::uint64_t held_ = 0;   // compressed bytes in both
  std::size_t waiting_ = 0;  // readers
  bool given_up_ = false;    // by the last of them
  bool fetching_ = false;
  bool is_known_ = false;  // all that was fetched came by begin_ahead()
  bool decoding_ = false;
  bool complete_ = false;
  std::optional<Error> error_;
  std::atomic<std::uint64_t> served_{0};
  std::atomic<std::uint64_t> last_use_{0};
  std::atomic<std::uint64_t> needed_{0};
};

}  // namespace erofs_oci
