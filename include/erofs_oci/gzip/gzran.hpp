// SPDX-License-Identifier: Apache-2.0
/// @file
/// Gzran: the decoded bytes of a gzip blob, at any offset.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/gzran_pool.hpp>
#include <erofs_oci/gzip/gzran_span.hpp>
#include <erofs_oci/gzip/member.hpp>

namespace erofs_oci {

/// How a Gzran works.
struct GzranOptions {
  /// Most bytes held, decoded and fetched ones together; spans in use may go over it, each by as
  /// much as 4 MiB. Not looked at if there is a `pool`. Range: 1 MiB or more. Default: 64 MiB.
  std::uint64_t cache_bytes = 64 << 20;

  /// Longest that one read waits, all its spans together. Default: 30 s.
  std::chrono::milliseconds deadline = std::chrono::seconds(30);

  /// Spans fetched and decoded ahead of a reader that goes through a span in sequence.
  /// Range: 0 to 8. Default: 1.
  unsigned read_ahead = 1;

  /// Spans that are fetched or decoded in the background at the same time: the most requests to a
  /// remote source under way. Not looked at if there is a `pool`. Range: 1 to 64. Default: 8.
  unsigned workers = 8;

  /// Bytes in the decoded stream, if known for certain. Default: the last span is decoded by make()
  /// to find out.
  std::optional<std::uint64_t> size{};

  /// Memory and threads shared with other Gzrans. Default: its own.
  std::shared_ptr<GzranPool> pool{};
};

/// What a Gzran has done so far.
struct GzranStats {
  std::uint64_t fetches = 0;        ///< runs of compressed bytes asked of the source below
  std::uint64_t fetched_bytes = 0;  ///< compressed bytes that came
  std::uint64_t spans_entered = 0;  ///< spans that were begun
  std::uint64_t memory = 0;         ///< bytes held now, by all that share its pool
};

/// Decoded bytes of the gzip blob `Inner`, at any offset, through an index of checkpoints.
///
/// A span that is read is fetched as one run, in the background if the source below is remote, and
/// kept while it grows: see GzipSpan. So it needs no Cached above it; one below would keep the same
/// bytes twice. Independent spans are fetched and decoded in parallel. The decoded length of each
/// span is checked against the index: parts that do not belong together give an error.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource Inner, Inflater I = DefaultInflater>
class Gzran {
 public:
  /// Reads at most the blob's first bytes, if the index asks for it, and its last span, unless
  /// `options.size` says what that is good for.
  /// @param inner  the blob; owned from here on
  /// @param index  its checkpoints, as read_zinfo() gives them
  /// @error{Errc::corrupt, a checkpoint breaks a rule\, or the last span is no gzip data}
  /// @error{Errc::mismatch, the index does not fit the blob}
  [[nodiscard]] static Result<Gzran> make(Inner inner, GzipIndex index, GzranOptions options = {}) {
    if (auto const ok = check_checkpoints(index.checkpoints); !ok) return fail(ok.error());
    auto state = std::make_unique<State>(std::move(inner), std::move(index), options);
    if (auto const ok = state->open(); !ok) return fail(ok.error());
    return Gzran(std::move(state));
  }

  /// @name RandomAccessSource
  /// @{

  /// @error{Errc::timed_out, the deadline passed before the bytes were there}
  /// @error{Errc::mismatch, a span does not decode to what the index says}
  /// @error{Errc::corrupt, a span is no gzip data}
  [[nodiscard]] std::uint64_t size() const noexcept { return state_->size; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return state_->read_at(offset, out);
  }

  /// Begins the spans that hold these bytes, as far as background workers are free.
  void prefetch(std::uint64_t offset, std::uint64_t length) const {
    state_->prefetch(offset, length);
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return state_->inner; }

  /// "gzip over …".
  [[nodiscard]] std::string describe() const {
    return "gzip over " + erofs_oci::describe(state_->inner);
  }

  /// Counters, not all taken at one instant.
  [[nodiscard]] GzranStats stats() const {
    auto const& s = *state_;
    return {s.fetches.load(), s.fetched_bytes.load(), s.spans_entered.load(), s.pool->used()};
  }

  /// The checkpoints in use.
  [[nodiscard]] GzipIndex const& index() const noexcept { return state_->index; }

 private:
  using Span = GzipSpan<I>;
  using SpanPtr = std::shared_ptr<Span>;

  /// A span that kept less than what one read copies at once would be decoded again and again.
  static constexpr std::uint64_t fewest_kept = 4 << 20;

  // What is queued or runs in the pool and uses the State. Outlives it, to tell it of the last end.
  struct Tasks {
    std::mutex mutex;
    std::condition_variable none;
    std::size_t count = 0;
  };

  struct State {
    State(Inner source, GzipIndex checkpoints, GzranOptions chosen)
        : inner(std::move(source)),
          index(std::move(checkpoints)),
          options(chosen),
          remote(is_remote(inner)),
          pool(chosen.pool ? chosen.pool
                           : std::make_shared<GzranPool>(chosen.cache_bytes, chosen.workers)),
          member(pool->join({[this] { return oldest(); }, [this] { drop_oldest(); }})) {}

    State(State const&) = delete;
    State& operator=(State const&) = delete;
    ~State() {
      stopping = true;
      pool->leave(member);
      std::unique_lock lock(tasks->mutex);
      tasks->none.wait(lock, [this] { return tasks->count == 0; });
    }

    Result<void> open();
    Result<void> find_first();
    Result<void> measure();
    Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out);
    Result<std::size_t> read_in_span(std::size_t number, std::uint64_t offset,
                                     std::span<std::byte> out, typename Span::TimePoint deadline);
    Result<typename Span::Found> read_growing(SpanPtr const& span, std::uint64_t offset,
                                              std::span<std::byte> out, std::size_t& n,
                                              typename Span::TimePoint deadline);
    void prefetch(std::uint64_t offset, std::uint64_t length);
    [[nodiscard]] detail::SpanPlace place(std::size_t number) const;
    [[nodiscard]] SpanPtr acquire(std::size_t number);
    [[nodiscard]] bool holds(std::size_t number);
    void discard(SpanPtr const& span);
    [[nodiscard]] std::optional<std::uint64_t> oldest();
    void drop_oldest();
    [[nodiscard]] bool in_background(std::function<void()> task);
    void ahead(std::size_t number);
    void bring_input(SpanPtr const& span);
    void begin_all(std::size_t first, std::size_t last);
    void fetch_rest(Span& span, bool decode_too);
    void fetch_piece(Span& span);
    void decode_local(Span& span);

    Inner const inner;
    GzipIndex index;
    GzranOptions const options;
    bool const remote;
    std::shared_ptr<GzranPool> const pool;
    std::list<GzranPool::Member>::iterator const member;
    std::uint64_t size = 0;

    std::mutex mutex;          // guards the next two; never held during I/O or decoding
    std::list<SpanPtr> spans;  // last used first
    std::unordered_map<std::size_t, typename std::list<SpanPtr>::iterator> by_number;

    std::atomic<std::uint64_t> fetches{0};
    std::atomic<std::uint64_t> fetched_bytes{0};
    std::atomic<std::uint64_t> spans_entered{0};
    std::atomic<unsigned> ahead_now{0};
    std::atomic<bool> stopping{false};
    std::shared_ptr<Tasks> const tasks = std::make_shared<Tasks>();
  };

  explicit Gzran(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}

  std::unique_ptr<State> state_;
};

// --- Opening -------------------------------------------------------------------------------------

template <RandomAccessSource Inner, Inflater I>
Result<void> Gzran<Inner, I>::State::open() {
  if (index.first_is_assumed) {
    if (auto const ok = find_first(); !ok) return ok;
  }
  auto const& last = index.checkpoints.back();
  if (last.in > inner.size()) {
    return fail(Errc::mismatch, "gzip index: the last checkpoint is at blob offset " +
                                    std::to_string(last.in) + ", " + erofs_oci::describe(inner) +
                                    " has " + std::to_string(inner.size()) + " bytes");
  }
  if (!options.size) return measure();
  if (*options.size < last.out) {
    return fail(Errc::mismatch, "gzip index: the last checkpoint is at decoded offset " +
                                    std::to_string(last.out) + ", the stream should have " +
                                    std::to_string(*options.size) + " bytes");
  }
  size = *options.size;
  return {};
}

// The first block starts right behind the blob's member header, however long that is.
template <RandomAccessSource Inner, Inflater I>
Result<void> Gzran<Inner, I>::State::find_first() {
  constexpr std::uint64_t most = 256 * 1024;  // FEXTRA alone can have 64 KiB
  MemberHeaderParser header;
  Bytes piece(4096);
  while (header.taken() < most) {
    auto const n = inner.read_at(header.taken(), piece);
    if (!n) return fail(n.error());
    if (*n == 0) break;
    for (auto const byte : std::span(piece).first(*n)) {
      auto const state = header.push(byte);
      if (!state) return fail(state.error(), erofs_oci::describe(inner));
      if (*state == MemberHeaderParser::State::not_a_header) {
        return fail(Errc::mismatch, erofs_oci::describe(inner) + ": offset 0: not a gzip blob");
      }
      if (*state == MemberHeaderParser::State::done) {
        index.checkpoints.front().in = header.taken();
        index.first_is_assumed = false;
        return check_checkpoints(index.checkpoints);
      }
    }
  }
  return fail(Errc::corrupt, erofs_oci::describe(inner) + ": offset 0: the gzip header has no end");
}

// Decodes the last span to its end.
template <RandomAccessSource Inner, Inflater I>
Result<void> Gzran<Inner, I>::State::measure() {
  auto const number = index.checkpoints.size() - 1;
  auto const start = index.checkpoints.back().out;
  auto const deadline = std::chrono::steady_clock::now() + options.deadline;
  auto const span = acquire(number);
  while (!span->complete()) {
    std::array<std::byte, 1> probe{};
    std::size_t n = 0;
    auto const next = start + span->decoded() + gzip_chunk_size - 1;
    auto const found = read_growing(span, next, probe, n, deadline);
    if (!found) {
      discard(span);
      return fail(found.error(), erofs_oci::describe(inner));
    }
  }
  size = start + span->decoded();
  return {};
}

// --- Reading -------------------------------------------------------------------------------------

template <RandomAccessSource Inner, Inflater I>
Result<std::size_t> Gzran<Inner, I>::State::read_at(std::uint64_t offset,
                                                    std::span<std::byte> out) {
  constexpr std::size_t most_at_once = 1 << 20;  // well below `fewest_kept`
  auto const wanted = readable(size, offset, out.size());
  if (wanted == 0) return std::size_t{0};
  auto const deadline = std::chrono::steady_clock::now() + options.deadline;

  auto number = index.span_of(offset);
  if (remote) {
    // All spans of the read are asked for at once; more than a few would only push each other out.
    auto const last = std::min(index.span_of(offset + wanted - 1), number + pool->threads() - 1);
    begin_all(number, last);
  }
  std::size_t done = 0;
  while (done < wanted) {
    auto const at = offset + done;
    number = index.span_of(at);
    auto const end = place(number).out_end.value_or(size);
    auto const part =
        static_cast<std::size_t>(std::min<std::uint64_t>({wanted - done, most_at_once, end - at}));
    auto const n = read_in_span(number, at, out.subspan(done, part), deadline);
    if (!n) return fail(n.error(), erofs_oci::describe(inner));
    done += *n;
  }
  if (pool->used() > pool->cache_bytes()) pool->shrink();
  return done;
}

template <RandomAccessSource Inner, Inflater I>
Result<std::size_t> Gzran<Inner, I>::State::read_in_span(std::size_t number, std::uint64_t offset,
                                                         std::span<std::byte> out,
                                                         typename Span::TimePoint deadline) {
  for (;;) {
    auto const span = acquire(number);
    std::size_t n = 0;
    auto const found = read_growing(span, offset, out, n, deadline);
    if (!found) {
      if (span->failed()) discard(span);
      return fail(found.error());
    }
    if (*found == Span::Found::dropped) {
      discard(span);
      continue;
    }
    if (n < out.size()) {
      return fail(Errc::mismatch, detail::describe_span(span->place()) +
                                      ": the decoded stream ends at " + std::to_string(offset + n) +
                                      ", not at " + std::to_string(size));
    }
    if (span->count_served(n)) ahead(number + 1);
    return n;
  }
}

// Reads from the span, bringing it compressed bytes as it asks for them.
template <RandomAccessSource Inner, Inflater I>
auto Gzran<Inner, I>::State::read_growing(SpanPtr const& span, std::uint64_t offset,
                                          std::span<std::byte> out, std::size_t& n,
                                          typename Span::TimePoint deadline)
    -> Result<typename Span::Found> {
  for (;;) {
    auto const found = span->read(offset, out, n, deadline);
    if (!found || *found == Span::Found::bytes) return found;
    if (std::chrono::steady_clock::now() >= deadline) {
      return fail(Errc::timed_out, detail::describe_span(span->place()));
    }
    if (*found == Span::Found::dropped) return found;
    bring_input(span);
  }
}

template <RandomAccessSource Inner, Inflater I>
void Gzran<Inner, I>::State::prefetch(std::uint64_t offset, std::uint64_t length) {
  if (length == 0 || offset >= size) return;
  auto const last = index.span_of(offset + std::min(length, size - offset) - 1);
  for (auto i = index.span_of(offset); i <= last; ++i) {
    if (ahead_now.load() > options.read_ahead) return;
    ahead(i);
  }
}

// --- The table of spans --------------------------------------------------------------------------

template <RandomAccessSource Inner, Inflater I>
detail::SpanPlace Gzran<Inner, I>::State::place(std::size_t number) const {
  auto const& points = index.checkpoints;
  if (number + 1 == points.size()) return {number, points[number], inner.size(), std::nullopt};
  return {number, points[number], points[number + 1].in, points[number + 1].out};
}

template <RandomAccessSource Inner, Inflater I>
auto Gzran<Inner, I>::State::acquire(std::size_t number) -> SpanPtr {
  std::lock_guard const lock(mutex);
  if (auto const found = by_number.find(number); found != by_number.end()) {
    if (!(*found->second)->failed()) {
      spans.splice(spans.begin(), spans, found->second);
      spans.front()->touch(pool->tick());
      return spans.front();
    }
    spans.erase(found->second);
    by_number.erase(found);
  }
  spans.push_front(std::make_shared<Span>(place(number), index.window, pool,
                                          std::max(pool->cache_bytes() / 2, fewest_kept)));
  spans.front()->touch(pool->tick());
  by_number.emplace(number, spans.begin());
  spans_entered.fetch_add(1, std::memory_order_relaxed);
  return spans.front();
}

template <RandomAccessSource Inner, Inflater I>
bool Gzran<Inner, I>::State::holds(std::size_t number) {
  std::lock_guard const lock(mutex);
  return by_number.contains(number);
}

template <RandomAccessSource Inner, Inflater I>
void Gzran<Inner, I>::State::discard(SpanPtr const& span) {
  std::lock_guard const lock(mutex);
  auto const found = by_number.find(span->place().number);
  if (found == by_number.end() || *found->second != span) return;
  spans.erase(found->second);
  by_number.erase(found);
}

// When the span that nobody uses, and that was used longest ago, was used.
template <RandomAccessSource Inner, Inflater I>
std::optional<std::uint64_t> Gzran<Inner, I>::State::oldest() {
  std::lock_guard const lock(mutex);
  auto const unused = [](SpanPtr const& span) { return span.use_count() == 1; };
  auto const found = std::find_if(spans.rbegin(), spans.rend(), unused);
  if (found == spans.rend()) return std::nullopt;
  return (*found)->last_use();
}

template <RandomAccessSource Inner, Inflater I>
void Gzran<Inner, I>::State::drop_oldest() {
  SpanPtr victim;  // ends after the lock
  std::lock_guard const lock(mutex);
  auto const unused = [](SpanPtr const& span) { return span.use_count() == 1; };
  auto const found = std::find_if(spans.rbegin(), spans.rend(), unused);
  if (found == spans.rend()) return;
  victim = std::move(*found);
  by_number.erase(victim->place().number);
  spans.erase(std::prev(found.base()));
}

// --- Fetching ------------------------------------------------------------------------------------

// Runs the task on a thread of the pool; false if too many wait already.
template <RandomAccessSource Inner, Inflater I>
bool Gzran<Inner, I>::State::in_background(std::function<void()> task) {
  {
    std::lock_guard const lock(tasks->mutex);
    ++tasks->count;
  }
  auto const end = [tasks = tasks] {
    std::lock_guard const lock(tasks->mutex);
    if (--tasks->count == 0) tasks->none.notify_all();
  };
  auto const queued = pool->workers().try_submit([task = std::move(task), end]() mutable {
    task();
    task = nullptr;  // what it holds goes before the State may
    end();
  });
  if (!queued) end();
  return queued;
}

// Fetches and decodes a whole span that nobody waits for yet, unless enough of that goes on.
template <RandomAccessSource Inner, Inflater I>
void Gzran<Inner, I>::State::ahead(std::size_t number) {
  auto const end = std::min<std::size_t>(number + options.read_ahead, index.checkpoints.size());
  for (; number < end; ++number) {
    if (holds(number)) continue;
    if (ahead_now.fetch_add(1) > options.read_ahead) {
      --ahead_now;
      return;
    }
    auto const queued = in_background([this, span = acquire(number)] {
      if (!remote) {
        decode_local(*span);
      } else if (span->begin_fetch()) {
        fetch_rest(*span, true);
      }
      --ahead_now;
    });
    if (!queued) --ahead_now;
  }
}

// Decodes a span of a local blob, unless a reader is at it already.
template <RandomAccessSource Inner, Inflater I>
void Gzran<Inner, I>::State::decode_local(Span& span) {
  while (!stopping && span.decoded() < pool->cache_bytes() / 4 && span.begin_fetch()) {
    fetch_piece(span);
    span.decode_ahead();
  }
}

// Makes sure that compressed bytes come: the rest of a remote span, in the background, or the next
// piece of a local one.
template <RandomAccessSource Inner, Inflater I>
void Gzran<Inner, I>::State::bring_input(SpanPtr const& span) {
  if (!span->begin_fetch()) return;
  if (!remote) return fetch_piece(*span);
  auto const queued = in_background([this, span] { fetch_rest(*span, false); });
  if (!queued) fetch_rest(*span, false);
}

// Asks for all spans of one read at once.
template <RandomAccessSource Inner, Inflater I>
void Gzran<Inner, I>::State::begin_all(std::size_t first, std::size_t last) {
  for (auto i = first; i <= last; ++i) {
    auto const span = acquire(i);
    if (span->untouched()) bring_input(span);
  }
}

// One request for what is left of the span. Called with the right to fetch, which ends here.
template <RandomAccessSource Inner, Inflater I>
void Gzran<Inner, I>::State::fetch_rest(Span& span, bool decode_too) {
  constexpr std::uint64_t most_waiting = 8 << 20;  // of a span so large that nobody waits for all
  auto const from = span.next_byte();
  auto const length = span.place().blob_end - from;
  std::uint64_t got = 0;
  bool paused = false;
  fetches.fetch_add(1, std::memory_order_relaxed);
  auto const ok = erofs_oci::stream(inner, from, length, [&](std::span<std::byte const> piece) {
    got += piece.size();
    fetched_bytes.fetch_add(piece.size(), std::memory_order_relaxed);
    paused = !span.push(piece, most_waiting) && got < length;
    if (decode_too) span.decode_ahead();
    return !paused && !stopping;
  });
  if (!ok) return span.end_fetch(fail(ok.error(), detail::describe_span(span.place())).value());
  if (got < length && !paused) {
    auto const code = stopping ? Errc::stopping : Errc::truncated;
    return span.end_fetch(fail(code, detail::describe_span(span.place()) + ": after " +
                                         std::to_string(got) + " bytes")
                              .value());
  }
  span.end_fetch(std::nullopt);
}

// The next piece of a local span. Called with the right to fetch, which ends here.
template <RandomAccessSource Inner, Inflater I>
void Gzran<Inner, I>::State::fetch_piece(Span& span) {
  constexpr std::uint64_t piece_size = 128 * 1024;
  auto const from = span.next_byte();
  Bytes piece(static_cast<std::size_t>(std::min(piece_size, span.place().blob_end - from)));
  auto const ok = read_exact(inner, from, piece);
  if (!ok) return span.end_fetch(fail(ok.error(), detail::describe_span(span.place())).value());
  fetches.fetch_add(1, std::memory_order_relaxed);
  fetched_bytes.fetch_add(piece.size(), std::memory_order_relaxed);
  (void)span.push(piece, piece_size);  // one piece, full or not
  span.end_fetch(std::nullopt);
}

}  // namespace erofs_oci
