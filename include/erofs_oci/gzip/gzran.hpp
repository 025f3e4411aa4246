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
#include <deque>
#include <functional>
#include <limits>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/demand_gate.hpp>
#include <erofs_oci/gzip/fetch_policy.hpp>
#include <erofs_oci/gzip/gzip_span.hpp>
#include <erofs_oci/gzip/gzran_pool.hpp>
#include <erofs_oci/gzip/member.hpp>

namespace erofs_oci {
namespace detail {
template <RandomAccessSource Inner, Inflater I>
struct GzranState;
}

/// How a Gzran works.
struct GzranOptions {
  /// Most bytes held, decoded and fetched ones together; spans in use may go over it, each by as
  /// much as 4 MiB. Not looked at if there is a `pool`. Range: 1 MiB or more. Default: 64 MiB.
  std::uint64_t cache_bytes = 64 << 20;

  /// Longest that one read waits, all its spans together. Default: 30 s.
  std::chrono::milliseconds deadline = std::chrono::seconds(30);

  /// Spans of a local source that are decoded ahead of a reader that goes through a span in
  /// sequence. 0: from a remote one, too, nothing is fetched before some read lacks it.
  /// Range: 0 to 8. Default: 1.
  unsigned read_ahead = 1;

  /// How much of a remote source is fetched at once; at most an eighth of the memory beyond what a
  /// read needs.
  FetchOptions fetch{};

  /// Compressed bytes of a span, counted from its first one, that the source below checks at once:
  /// a fetch ends between two. 0: it checks spans as a whole. Default: 64 KiB.
  std::uint64_t granule = 64 * 1024;

  /// Ranges that are fetched or decoded in the background at the same time: the most requests to a
  /// remote source under way. Not looked at if there is a `pool`. Range: 1 to 64. Default: 8.
  unsigned workers = 8;

  /// Bytes in the decoded stream, if known for certain. Default: the last span is decoded by make()
  /// to find out.
  std::optional<std::uint64_t> size{};

  /// Memory and threads shared with other Gzrans. Default: its own.
  std::shared_ptr<GzranPool> pool{};

  /// Told, by the thread of a read of a remote source, of bytes of the blob that decoding what the
  /// read got has taken: from a span's first byte on, up to the end of a granule. What it was told
  /// of a span it is not told again while that is kept. Default: nobody is.
  std::function<void(std::uint64_t begin, std::uint64_t end)> on_need{};

  /// Told, by the thread of a read of a remote source, which decoded bytes [begin, end) it has got.
  /// Default: nobody is.
  std::function<void(std::uint64_t begin, std::uint64_t end)> on_read{};
};

/// What a Gzran has done so far.
struct GzranStats {
  std::uint64_t fetches = 0;        ///< ranges of compressed bytes asked of the source below
  std::uint64_t fetched_bytes = 0;  ///< compressed bytes that came
  std::uint64_t spans_entered = 0;  ///< spans that were begun
  std::uint64_t memory = 0;         ///< bytes held now, by all that share its pool
};

/// Decoded bytes of the gzip blob `Inner`, at any offset, through an index of checkpoints.
///
/// Of a remote source, a read fetches one range in the background: from the checkpoint, or from
/// where that span's last fetch ended, to the end of what it needs and some more, over span after
/// span (see FetchPolicy). A span is kept while it grows: see GzipSpan. So it needs no Cached above
/// it; one below would keep the same bytes twice. Independent ranges are fetched and decoded in
/// parallel. The decoded length of each span is checked against the index: parts that do not belong
/// together give an error.
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
    EROFS_OCI_TRY(check_checkpoints(index.checkpoints));
    auto state = std::make_unique<State>(std::move(inner), std::move(index), options);
    EROFS_OCI_TRY(state->open());
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
  /// @}

  /// Fetches bytes [begin, end) of a remote blob for reads to come, in the calling thread: from the
  /// first byte of the span of `begin` on, to the end of the granule of `end`. Spans of which
  /// something is there or on its way are left out. Begins no request while a read has one under
  /// way. What comes of it is an error for no read.
  /// @return compressed bytes that came
  /// @error{Errc::stopping, `stop` was requested}
  /// @error{as Inner, as there}
  [[nodiscard]] Result<std::uint64_t> fetch(std::uint64_t begin, std::uint64_t end,
                                            std::stop_token const& stop) const {
    return state_->fetch(begin, end, stop);
  }

  /// Where the first span begins, at byte `at` of the blob or behind it; the blob's end if none
  /// does.
  [[nodiscard]] std::uint64_t next_span(std::uint64_t at) const noexcept {
    auto const number = state_->first_span_from(at);
    auto const& points = state_->index.checkpoints;
    return number == points.size() ? state_->inner.size() : points[number].first_byte();
  }

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
  using State = detail::GzranState<Inner, I>;

  explicit Gzran(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}

  std::unique_ptr<State> state_;
};

namespace detail {

/// What a Gzran owns. It stays where it is, since the pool and tasks in the background know it.
template <RandomAccessSource Inner, Inflater I>
struct GzranState {
  using Span = GzipSpan<I>;
  using SpanPtr = std::shared_ptr<Span>;

  /// A span that kept less than what one read copies at once would be decoded again and again.
  static constexpr std::uint64_t fewest_kept = 4 << 20;

  // Compressed bytes that wait in one span; of one so large that nobody waits for all of it.
  static constexpr std::uint64_t most_waiting = 8 << 20;

  // What a read needs: decoded bytes up to `end`.
  struct Reading {
    std::uint64_t end = 0;
    FetchMore more;
    typename Span::TimePoint deadline;
  };

  // What is fetched at once must not push itself out before it is read. Decoded it is about three
  // times as much.
  static FetchOptions within(FetchOptions fetch, std::uint64_t cache_bytes) noexcept {
    fetch.first = std::min(fetch.first, cache_bytes / 8);
    fetch.most = std::min(fetch.most, cache_bytes / 8);
    return fetch;
  }

  // Who decodes what a fetch brings.
  enum class Decode { by_readers, at_once };

  // A range of the blob and the spans that its bytes go to, in order. Whoever has it has the right
  // to fetch them, which ends with it.
  struct Claim {
    static constexpr auto never = std::numeric_limits<std::uint64_t>::max();

    std::deque<SpanPtr> spans;
    std::uint64_t next = 0;
    std::uint64_t end = 0;
    DemandGate::Demand demand;     // of a read; none: nobody waits for it
    std::uint64_t needed = never;  // behind that it gives way to what a read waits for
    bool gave_way = false;         // has done so

    Claim() = default;
    Claim(Claim const&) = delete;
    Claim& operator=(Claim const&) = delete;
    ~Claim() {
      while (!spans.empty()) end_front({});
    }

    // Adds the span if `begin` yields the right to fetch it.
    bool add(SpanPtr span, bool (Span::*begin)()) {
      spans.push_back(std::move(span));  // first, since it may throw
      if (((*spans.back()).*begin)()) return true;
      spans.pop_back();
      return false;
    }

    void end_front(Result<void> outcome) noexcept {
      spans.front()->end_fetch(std::move(outcome));
      spans.pop_front();
    }

    // Whether a reader waits for a byte of it.
    [[nodiscard]] bool waited_for() const {
      return std::ranges::any_of(spans, [](auto const& span) { return span->waited_for(); });
    }
    // Whether those that waited for a byte of it have given up.
    [[nodiscard]] bool given_up() const {
      return std::ranges::any_of(spans, [](auto const& span) { return span->given_up(); }) &&
             !waited_for();
    }
  };

  // Takes the times of one answer.
  class StreamTimer {
   public:
    // Some of its bytes have come; none: nothing is noted.
    void note(std::size_t bytes) noexcept {
      if (first_) {
        bytes_ += bytes;
      } else if (bytes > 0) {
        first_ = std::chrono::steady_clock::now();
      }
    }
    // All of them have.
    void tell(LinkEstimate& link) const noexcept {
      if (first_) link.note(*first_ - begin_, bytes_, std::chrono::steady_clock::now() - *first_);
    }

   private:
    using TimePoint = std::chrono::steady_clock::time_point;

    TimePoint const begin_ = std::chrono::steady_clock::now();
    std::optional<TimePoint> first_;
    std::uint64_t bytes_ = 0;  // behind the first ones
  };

  // Counts a call while it runs.
  class Running {
   public:
    explicit Running(std::atomic<unsigned>& calls) noexcept : calls_(calls) { ++calls_; }
    Running(Running const&) = delete;
    Running& operator=(Running const&) = delete;
    ~Running() { --calls_; }

   private:
    std::atomic<unsigned>& calls_;
  };

  // What is queued or runs in the pool and uses the state. Outlives it, to tell it of the last end.
  struct Tasks {
    std::mutex mutex;
    std::condition_variable none;
    std::size_t count = 0;

    void begin() {
      std::lock_guard const lock(mutex);
      ++count;
    }
    void end() noexcept {
      std::lock_guard const lock(mutex);
      if (--count == 0) none.notify_all();
    }
  };

  Inner const inner;
  GzipIndex index;
  GzranOptions const options;
  bool const remote = is_remote(inner);
  std::shared_ptr<GzranPool> const pool =
      options.pool ? options.pool
                   : std::make_shared<GzranPool>(options.cache_bytes, options.workers);
  std::uint64_t size = 0;

  std::mutex mutex;  // guards `spans`; never held during I/O or decoding
  std::unordered_map<std::size_t, SpanPtr> spans;

  std::atomic<std::uint64_t> fetches{0};
  std::atomic<std::uint64_t> fetched_bytes{0};
  std::atomic<std::uint64_t> spans_entered{0};
  std::atomic<unsigned> reads_now{0};
  std::atomic<unsigned> ahead_now{0};
  std::atomic<unsigned> fetching_ahead{0};  // calls of fetch()

  std::mutex policy_mutex;
  FetchPolicy policy{within(options.fetch, pool->cache_bytes())};

  std::atomic<bool> stopping{false};
  std::shared_ptr<Tasks> const tasks = std::make_shared<Tasks>();

  // Last: from here on the pool calls.
  std::list<GzranPool::Member>::iterator const member =
      pool->join({[this] { return oldest(); }, [this] { drop_oldest(); }});

  GzranState(Inner source, GzipIndex checkpoints, GzranOptions const& chosen)
      : inner(std::move(source)), index(std::move(checkpoints)), options(chosen) {}

  GzranState(GzranState const&) = delete;
  GzranState& operator=(GzranState const&) = delete;
  ~GzranState() {
    stopping = true;
    pool->leave(member);
    std::unique_lock lock(tasks->mutex);
    tasks->none.wait(lock, [this] { return tasks->count == 0; });
  }

  // --- Opening -----------------------------------------------------------------------------------

  Result<void> open() {
    if (index.first_is_assumed) EROFS_OCI_TRY(find_first());
    auto const& last = index.checkpoints.back();
    if (last.in > inner.size()) {
      return fail(Errc::mismatch, "gzip index: the last checkpoint is at blob offset " +
                                      std::to_string(last.in) + ", " + describe(inner) + " has " +
                                      std::to_string(inner.size()) + " bytes");
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
  Result<void> find_first() {
    constexpr std::uint64_t most = 256 * 1024;  // FEXTRA alone can have 64 KiB
    MemberHeaderParser header;
    Bytes piece(4096);
    while (header.taken() < most) {
      EROFS_OCI_TRY_ASSIGN(auto const n, inner.read_at(header.taken(), piece));
      if (n == 0) break;
      for (auto const byte : std::span(piece).first(n)) {
        EROFS_OCI_TRY_ASSIGN(auto const state, header.push(byte), describe(inner));
        if (state == MemberHeaderParser::State::not_a_header) {
          return fail(Errc::mismatch, describe(inner) + ": offset 0: not a gzip blob");
        }
        if (state == MemberHeaderParser::State::done) {
          index.checkpoints.front().in = header.taken();
          index.first_is_assumed = false;
          return check_checkpoints(index.checkpoints);
        }
      }
    }
    return fail(Errc::corrupt, describe(inner) + ": offset 0: the gzip header has no end");
  }

  // Decodes the last span to its end.
  Result<void> measure() {
    auto const start = index.checkpoints.back().out;
    auto const deadline = std::chrono::steady_clock::now() + options.deadline;
    auto const span = acquire(index.checkpoints.size() - 1);
    while (!span->complete()) {
      std::array<std::byte, 1> probe{};
      std::size_t n = 0;
      auto const next = start + span->decoded() + gzip_chunk_size - 1;
      auto const found = read_growing(span, next, probe, n, {next + 1, {}, deadline});
      if (!found) {
        discard(span);
        return fail(found.error(), describe(inner));
      }
    }
    size = start + span->decoded();
    return {};
  }

  // --- Reading -----------------------------------------------------------------------------------

  Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) {
    constexpr std::size_t most_at_once = 1 << 20;  // well below `fewest_kept`
    auto const wanted = readable(size, offset, out.size());
    if (wanted == 0) return std::size_t{0};
    auto const deadline = std::chrono::steady_clock::now() + options.deadline;

    Running const running(reads_now);
    Reading reading{offset + wanted, {}, deadline};
    if (remote) reading.more = fetch_lacking(offset, reading.end);
    std::size_t done = 0;
    while (done < wanted) {
      auto const at = offset + done;
      auto const number = index.span_of(at);
      auto const end = place(number).out_end.value_or(size);
      auto const part = static_cast<std::size_t>(
          std::min<std::uint64_t>({wanted - done, most_at_once, end - at}));
      EROFS_OCI_TRY_ASSIGN(auto const n, read_in_span(number, at, out.subspan(done, part), reading),
                           describe(inner));
      done += n;
    }
    if (remote && options.on_read) options.on_read(offset, reading.end);
    if (remote && options.read_ahead > 0) fetch_ahead(reading);
    pool->shrink();
    return done;
  }

  // Asks for all that a read of decoded bytes [begin, end) lacks, at once; in more than a few spans
  // that would push each other out.
  FetchMore fetch_lacking(std::uint64_t begin, std::uint64_t end) {
    auto const first = index.span_of(begin);
    auto const last = std::min(index.span_of(end - 1), first + pool->threads() - 1);
    auto lacking = lacking_spans(first, last, end);
    auto const more = note_read(begin, end, !lacking.empty());
    if (more.before > 0 && !lacking.empty()) {
      lacking = lacking_spans(index.span_of(begin - more.before), last, end);
    }
    for (auto const& span : lacking) bring_input(span, {end, more, {}}, Decode::by_readers);
    return more;
  }

  // Those of spans `first` to `last` of which bytes up to `end` of the decoded stream are neither
  // there nor on their way.
  std::vector<SpanPtr> lacking_spans(std::size_t first, std::size_t last, std::uint64_t end) {
    std::vector<SpanPtr> lacking;
    for (auto i = first; i <= last; ++i) {
      auto span = acquire(i);
      if (span->lacks(end, map().needed(i, end))) lacking.push_back(std::move(span));
    }
    return lacking;
  }

  FetchMore note_read(std::uint64_t begin, std::uint64_t end, bool lacks) {
    std::lock_guard const lock(policy_mutex);
    policy.widen(pool->link().delay_product());
    auto more = policy.read(begin, end, lacks, reads_now);
    // Who fetches ahead knows better what is needed next.
    if (fetching_ahead > 0) more = {std::min(more.beyond, options.granule)};
    return more;
  }

  // Begins the next fetch of a reader that is sure to go on, before it has to wait for it.
  void fetch_ahead(Reading const& reading) {
    if (!policy.runs(reading.more.beyond) || !pool->has_free_thread()) return;
    auto number = index.span_of(reading.end);
    auto const at = map().needed(number, reading.end);
    auto next = map().begin(number);
    for (;; next = map().begin(number)) {
      auto const span = find(number);
      if (!span) break;
      if (span->fetching()) return;
      next = span->next_byte();
      if (next < map().end(number)) break;
      if (++number == index.checkpoints.size()) return;
    }
    if (next > at && next - at > reading.more.beyond / 2) return;
    auto const more = note_read(reading.end, reading.end, true);
    bring_input(acquire(number), {index.checkpoints[number].out, more, {}}, Decode::at_once);
  }

  Result<std::size_t> read_in_span(std::size_t number, std::uint64_t offset,
                                   std::span<std::byte> out, Reading const& reading) {
    for (;;) {
      auto const span = acquire(number);
      std::size_t n = 0;
      auto const found = read_growing(span, offset, out, n, reading);
      if (!found) {
        if (span->failed()) discard(span);
        return fail(found.error());
      }
      if (*found == Span::Found::dropped) {
        discard(span);
        continue;
      }
      if (n < out.size()) {
        return fail(Errc::mismatch, describe_span(span->place()) + ": the decoded stream ends at " +
                                        std::to_string(offset + n) + ", not at " +
                                        std::to_string(size));
      }
      if (!remote && span->count_served(n)) ahead(number + 1);
      if (remote && options.on_need) tell_needed(*span, offset + n);
      return n;
    }
  }

  // Tells what decoding up to `out_end` has taken. A decoder goes on to the end of a chunk if it
  // has the bytes; where it has gone on further, for other reads, it is a guess.
  void tell_needed(Span& span, std::uint64_t out_end) {
    auto const& at = span.place();
    auto const progress = span.progress();
    auto end = progress.taken;
    if (progress.decoded > out_end - at.start.out + gzip_chunk_size) {
      end = std::min(end, map().needed(at.number, out_end));
    }
    end = granule_end(at.number, end);
    if (span.raise_needed(end)) options.on_need(at.blob_begin(), end);
  }

  // The end of the granule of the span in which bytes before `at` of the blob lie.
  std::uint64_t granule_end(std::size_t number, std::uint64_t at) const {
    auto const end = map().end(number);
    if (at >= end) return end;
    auto const last = std::max(at, map().begin(number) + 1) - 1;
    return std::min(end, map().granule_end(number, last));
  }

  // The number of the first span that begins there or behind it.
  std::size_t first_span_from(std::uint64_t at) const noexcept {
    auto const& points = index.checkpoints;
    auto const found = std::ranges::lower_bound(points, at, {}, &Checkpoint::first_byte);
    return static_cast<std::size_t>(found - points.begin());
  }

  // Reads from the span, bringing it compressed bytes as it asks for them.
  Result<typename Span::Found> read_growing(SpanPtr const& span, std::uint64_t offset,
                                            std::span<std::byte> out, std::size_t& n,
                                            Reading const& reading) {
    for (;;) {
      auto const found = span->read(offset, out, n, reading.deadline);
      if (!found || *found == Span::Found::bytes) return found;
      if (std::chrono::steady_clock::now() >= reading.deadline) {
        return fail(Errc::timed_out, describe_span(span->place()));
      }
      if (*found == Span::Found::dropped) return found;
      bring_input(span, reading, Decode::by_readers);
    }
  }

  // --- The table of spans ------------------------------------------------------------------------

  SpanMap map() const { return {&index, inner.size(), size, options.granule}; }

  SpanPlace place(std::size_t number) const {
    auto const& points = index.checkpoints;
    if (number + 1 == points.size()) return {number, points[number], inner.size(), std::nullopt};
    return {number, points[number], points[number + 1].in, points[number + 1].out};
  }

  SpanPtr acquire(std::size_t number) {
    std::lock_guard const lock(mutex);
    auto found = spans.find(number);
    if (found == spans.end() || found->second->failed()) {
      auto fresh = std::make_shared<Span>(place(number), index.window, pool,
                                          std::max(pool->cache_bytes() / 2, fewest_kept));
      found = spans.insert_or_assign(number, std::move(fresh)).first;
      spans_entered.fetch_add(1, std::memory_order_relaxed);
    }
    found->second->touch(pool->tick());
    return found->second;
  }

  // The span, if there is something of it; null: nothing.
  SpanPtr find(std::size_t number) {
    std::lock_guard const lock(mutex);
    auto const found = spans.find(number);
    return found == spans.end() ? nullptr : found->second;
  }

  void discard(SpanPtr const& span) {
    std::lock_guard const lock(mutex);
    auto const found = spans.find(span->place().number);
    if (found != spans.end() && found->second == span) spans.erase(found);
  }

  // The span that nobody uses, and that was used longest ago; the end if all are in use. Called
  // with the lock held.
  auto find_oldest() {
    auto best = spans.end();
    for (auto i = spans.begin(); i != spans.end(); ++i) {
      if (i->second.use_count() > 1) continue;
      if (best == spans.end() || i->second->last_use() < best->second->last_use()) best = i;
    }
    return best;
  }

  // When that span was used.
  std::optional<std::uint64_t> oldest() {
    std::lock_guard const lock(mutex);
    auto const found = find_oldest();
    if (found == spans.end()) return std::nullopt;
    return found->second->last_use();
  }

  void drop_oldest() {
    typename decltype(spans)::node_type victim;  // ends after the lock
    std::lock_guard const lock(mutex);
    if (auto const found = find_oldest(); found != spans.end()) victim = spans.extract(found);
  }

  // --- Fetching ----------------------------------------------------------------------------------

  // Runs the task, which does not throw, on a thread of the pool; false if too many wait already,
  // or there is no memory for one more.
  template <class F>
  bool in_background(F task) noexcept {
    tasks->begin();
    auto const queued = without_throwing([&]() -> Result<bool> {
      return pool->workers().try_submit(
          [task = std::optional(std::move(task)), tasks = tasks]() mutable noexcept {
            (*task)();
            task.reset();  // what it holds goes before the state may
            tasks->end();
          });
    });
    if (queued && *queued) return true;
    tasks->end();
    return false;
  }

  // Decodes a whole span of a local blob that nobody waits for yet, unless enough of that goes on.
  void ahead(std::size_t number) {
    auto const end = std::min<std::size_t>(number + options.read_ahead, index.checkpoints.size());
    for (; number < end; ++number) {
      if (find(number)) continue;
      if (ahead_now.fetch_add(1) > options.read_ahead) {
        --ahead_now;
        return;
      }
      auto span = without_throwing([&]() -> Result<SpanPtr> { return acquire(number); });
      if (!span) {
        --ahead_now;
        return;
      }
      auto const queued = in_background([this, span = *std::move(span)]() mutable noexcept {
        decode_local(*span);
        span.reset();
        pool->shrink();  // no read need follow
        --ahead_now;
      });
      if (!queued) --ahead_now;
    }
  }

  // Decodes a span of a local blob, unless a reader is at it already.
  void decode_local(Span& span) {
    while (!stopping && span.decoded() < pool->cache_bytes() / 4 && span.begin_fetch()) {
      fetch_piece(span);
      span.decode_ahead();
    }
  }

  // Makes sure that compressed bytes come: a range of a remote blob that begins in the span, in the
  // background, or the next piece of a local one.
  void bring_input(SpanPtr const& span, Reading const& reading, Decode decode) {
    if (!remote) {
      if (span->begin_fetch()) fetch_piece(*span);
      return;
    }
    auto const claim = std::make_shared<Claim>();
    claim->demand = pool->gate().enter();
    if (!claim->add(span, &Span::begin_fetch)) return;
    claim->next = span->next_byte();
    claim->end = fetch_end(
        map(),
        {span->place().number, claim->next, reading.end, reading.more.beyond,
         reading.more.whole_spans},
        [&](std::size_t number) { return claim->add(acquire(number), &Span::begin_first_fetch); });
    auto const last = index.span_of(std::max<std::uint64_t>(reading.end, 1) - 1);
    claim->needed = decode == Decode::at_once
                        ? 0  // no read waits for it
                        : map().needed(std::max(last, span->place().number), reading.end);
    pool->begin_fetch();
    auto const queued = in_background([this, claim, decode] {
      fetch_claimed(*claim, decode);
      pool->end_fetch(claim->gave_way);
    });
    if (queued) return;
    pool->end_fetch(false);
    claim->needed = Claim::never;  // it has no thread to give
    fetch_claimed(*claim, decode);
  }

  // Whether nobody wants the rest of a range: all who waited for it have given up, or what reads
  // need of it has come and its thread is wanted for another read.
  bool ends_early(Claim& claim) {
    if (claim.given_up()) return true;
    if (claim.next < claim.needed || !pool->lacks_thread() || claim.waited_for()) return false;
    return claim.gave_way = pool->give_way();
  }

  // As Gzran::fetch().
  Result<std::uint64_t> fetch(std::uint64_t begin, std::uint64_t end, std::stop_token const& stop) {
    std::uint64_t came = 0;
    if (!remote || begin >= inner.size()) return came;
    Running const running(fetching_ahead);
    auto number = first_span_from(begin + 1);
    if (number > 0) --number;
    while (lies_before(number, end)) {
      if (!pool->gate().wait(stop)) return fail(Errc::stopping, erofs_oci::describe(inner));
      Claim claim;  // whose spans end without an error, whatever comes
      number = claim_ahead(number, end, claim);
      if (claim.spans.empty()) continue;
      auto const from = claim.next;
      auto outcome = stream_claimed(claim, Decode::by_readers, stop);
      came += claim.next - from;
      pool->shrink();
      EROFS_OCI_TRY(std::move(outcome), describe(inner));
    }
    return came;
  }

  // Whether there is such a span, and `end` is behind more of it than a byte of the one before.
  bool lies_before(std::size_t number, std::uint64_t end) const noexcept {
    return number < index.checkpoints.size() && index.checkpoints[number].in < end;
  }

  // Claims spans side by side of which nothing is there, from `number` on, as far as `end` needs
  // them. Yields the number of the first span that was neither claimed nor left out.
  std::size_t claim_ahead(std::size_t number, std::uint64_t end, Claim& claim) {
    for (; lies_before(number, end); ++number) {
      auto const claimed = claim.add(acquire(number), &Span::begin_ahead);
      if (!claimed && claim.spans.empty()) continue;
      if (!claimed) break;
      if (claim.spans.size() == 1) claim.next = map().begin(number);
      claim.end = granule_end(number, end);
    }
    return number;
  }

  // One request for the claimed range. An error is that of the span in which the bytes end; those
  // behind it can be asked for again.
  void fetch_claimed(Claim& claim, Decode decode) noexcept {
    auto outcome = without_throwing([&] { return stream_claimed(claim, decode); });
    if (!claim.spans.empty()) claim.end_front(std::move(outcome));
    pool->shrink();  // what was fetched ahead may be more than a read will make room for
  }

  Result<void> stream_claimed(Claim& claim, Decode decode, std::stop_token const& stop = {}) {
    auto const ends = [&] { return stopping || stop.stop_requested(); };
    bool paused = false;  // as the span has enough
    bool unwanted = false;
    fetches.fetch_add(1, std::memory_order_relaxed);
    StreamTimer timer;
    auto const take = [&](std::span<std::byte const> piece) {
      timer.note(piece.size());
      fetched_bytes.fetch_add(piece.size(), std::memory_order_relaxed);
      while (!piece.empty() && !claim.spans.empty() && !paused) {
        auto const span = claim.spans.front();
        auto const left = span->place().blob_end - claim.next;
        auto const part =
            piece.first(static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), left)));
        paused = !span->push(part, most_waiting) && claim.next + part.size() < claim.end;
        claim.next += part.size();
        piece = piece.subspan(part.size());
        if (decode == Decode::at_once) span->decode_ahead();
        if (part.size() == left) next_span(claim, part.back());
      }
      unwanted = unwanted || (!claim.spans.empty() && ends_early(claim));
      return !paused && !unwanted && !ends();
    };
    auto const first = claim.spans.front()->place();
    EROFS_OCI_TRY(stream(inner, claim.next, claim.end - claim.next, take), describe_span(first));
    if (!paused) timer.tell(pool->link());
    if (claim.next < claim.end && !paused && !unwanted) {
      return fail(ends() ? Errc::stopping : Errc::truncated,
                  describe_span(first) + ": at blob offset " + std::to_string(claim.next));
    }
    return {};
  }

  // Goes on in the next span; `last` is the last byte of the one before, and may be its first.
  void next_span(Claim& claim, std::byte last) {
    claim.end_front({});
    if (claim.spans.empty() || claim.spans.front()->place().start.bits == 0) return;
    (void)claim.spans.front()->push(std::span(&last, 1), most_waiting);
  }

  // The next piece of a local span. Called with the right to fetch, which ends here.
  void fetch_piece(Span& span) noexcept {
    span.end_fetch(without_throwing([&] { return read_piece(span); }));
  }

  Result<void> read_piece(Span& span) {
    constexpr std::uint64_t most = 128 * 1024;
    auto const from = span.next_byte();
    auto const left = span.place().blob_end - from;
    auto const piece_size = options.granule == 0 ? left : std::max(most, options.granule);
    Bytes piece(static_cast<std::size_t>(std::min(piece_size, left)));
    EROFS_OCI_TRY(read_exact(inner, from, piece), describe_span(span.place()));
    fetches.fetch_add(1, std::memory_order_relaxed);
    fetched_bytes.fetch_add(piece.size(), std::memory_order_relaxed);
    (void)span.push(piece, piece_size);  // one piece, full or not
    return {};
  }
};

}  // namespace detail
}  // namespace erofs_oci
