// SPDX-License-Identifier: Apache-2.0
/// @file
/// FetchPolicy: how much of a gzip blob is fetched at once, decided without I/O.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>

#include <erofs_oci/gzip/checkpoint.hpp>

namespace erofs_oci {

/// How much a FetchPolicy has fetched beyond what is needed.
struct FetchOptions {
  /// Compressed bytes beyond what a read needs, at a place where nobody has read yet.
  /// Default: 512 KiB, with which a cold start takes the fewest bytes that cost no time where a
  /// link is not known to be a long one: see FetchPolicy::widen().
  std::uint64_t first = 512 * 1024;

  /// The same for a reader that goes on: `first` is doubled at each of its fetches up to this.
  /// Default: 8 MiB, so that a layer in sequence takes one request for 4 MiB of it or more.
  std::uint64_t most = 8 << 20;

  /// Decoded bytes between the end of a read and the begin of one that counts as going on there, if
  /// not as many reads are under way as lie between them. Default: 256 KiB.
  std::uint64_t nearby = 256 * 1024;
};

/// What a read lacks.
struct FetchNeed {
  std::size_t span = 0;       ///< number of the span where fetching begins
  std::uint64_t begin = 0;    ///< first byte of the blob that is lacking there
  std::uint64_t out_end = 0;  ///< where the read ends in the decoded stream
  std::uint64_t beyond = 0;   ///< compressed bytes wanted beyond that
  bool whole_spans = false;   ///< the fetch ends where a span does
};

/// Where spans lie in a blob, as a FetchPolicy needs to know it.
struct SpanMap {
  GzipIndex const* index = nullptr;
  std::uint64_t blob_size = 0;
  std::uint64_t decoded_size = 0;  ///< 0: not known

  /// Compressed bytes of a span, counted from granules_begin(), that are checked at once: a fetch
  /// ends between two. 0: a span is checked as a whole.
  std::uint64_t granule = 64 * 1024;

  [[nodiscard]] std::uint64_t begin(std::size_t span) const noexcept {
    return index->checkpoints[span].first_byte();
  }
  [[nodiscard]] std::uint64_t end(std::size_t span) const noexcept {
    auto const& points = index->checkpoints;
    return span + 1 < points.size() ? points[span + 1].in : blob_size;
  }

  /// Where the granules of a span are counted from.
  [[nodiscard]] std::uint64_t granules_begin(std::size_t span) const noexcept {
    return begin(index->piece_span(span));
  }

  /// Where the granule ends in which byte `at` of the blob lies, which is one of span `span`.
  [[nodiscard]] std::uint64_t granule_end(std::size_t span, std::uint64_t at) const noexcept {
    auto last = span;
    while (last + 1 < index->checkpoints.size() &&
           index->piece_span(last + 1) == index->piece_span(span)) {
      ++last;
    }
    auto const all = end(last);
    auto const first = granules_begin(span);
    if (granule == 0) return all;
    return std::min(all, first + ((at - first) / granule + 1) * granule);
  }

  /// Up to where in the blob bytes are needed to decode up to `out`, of span `span`: a guess, as if
  /// the span were compressed evenly.
  [[nodiscard]] std::uint64_t needed(std::size_t span, std::uint64_t out) const noexcept {
    auto const& points = index->checkpoints;
    auto const from = points[span].out;
    auto const to = span + 1 < points.size() ? points[span + 1].out : decoded_size;
    if (out >= to) return end(span);
    if (out <= from) return begin(span);
    auto const part = static_cast<double>(out - from) / static_cast<double>(to - from);
    auto const bytes = end(span) - begin(span);
    auto const guess = static_cast<std::uint64_t>(part * static_cast<double>(bytes));
    return begin(span) + std::min(bytes, guess + 1);
  }
};

/// Where the fetch that answers `need` ends in the blob: from `need.begin` on it is one range,
/// which ends `need.beyond` bytes behind what is needed or before that, between two granules;
/// before a span that is not free; and, where spans are checked as a whole, before one that is not
/// needed and would have to come in part; so it is with `need.whole_spans`, too. It is never empty.
/// @param is_free  `(std::size_t span) -> bool`: nothing of it is there or on its way. Asked once
///                 for each span behind `need.span` that the range reaches into, in order; a span
///                 for which it said yes is in the range
template <std::predicate<std::size_t> IsFree>
[[nodiscard]] std::uint64_t fetch_end(SpanMap const& map, FetchNeed const& need,
                                      IsFree const& is_free) {
  auto const last_out = need.out_end == 0 ? 0 : need.out_end - 1;
  auto const last = std::max(need.span, map.index->span_of(last_out));
  auto const needed = std::max(map.needed(last, need.out_end), need.begin + 1);
  auto const left = map.blob_size - std::min(map.blob_size, needed);
  auto const wanted = std::min(needed, map.blob_size) + std::min(need.beyond, left);

  auto const granule = need.whole_spans ? 0 : map.granule;

  // The end of a fetch that ends in `span`, which begins at `from` there: `from` if it is not worth
  // reaching into it.
  auto const end_in = [&](std::size_t span, std::uint64_t from) {
    auto const begin = map.granules_begin(span);
    auto const end = map.end(span);
    if (wanted >= end) return end;
    if (granule == 0) return needed > from ? end : from;
    auto const whole = [&](std::uint64_t bytes) { return bytes / granule * granule; };
    auto const up = needed > from ? begin + whole(needed - begin + granule - 1) : from;
    auto const down = wanted > begin ? begin + whole(wanted - begin) : from;
    return std::min(end, std::max(up, down));
  };

  auto end = end_in(need.span, need.begin);
  for (auto span = need.span; end == map.end(span) && span + 1 < map.index->checkpoints.size();) {
    auto const from = map.end(span);  // a byte in which the next one begins is in this one, too
    ++span;
    auto const next = end_in(span, from);
    if (next <= from || next <= end || !is_free(span)) break;
    end = next;
  }
  return end;
}

/// What is fetched beside the bytes of a read that lacks some.
struct FetchMore {
  std::uint64_t beyond = 0;  ///< FetchNeed::beyond
  /// Decoded bytes right before the read that its reader has not asked for yet, and will: reads
  /// that are under way at the same time come in any order.
  std::uint64_t before = 0;
  /// Whether the range ends where a span does: its reader goes on, and would take the rest of the
  /// span by one more request if other reads have asked for the next one by then.
  bool whole_spans = false;
};

/// Tells readers that go on from those that jump, and how much each has fetched beyond its need.
/// Not thread-safe.
class FetchPolicy {
 public:
  explicit FetchPolicy(FetchOptions const& options) noexcept
      : options_(options), first_(options.first) {}

  /// Fits what readers that begin or jump from now on have fetched beyond their need to a link with
  /// this bandwidth-delay product, in bytes: a quarter of it, which costs a quarter of the time
  /// that one more request would; at least FetchOptions::first, at most a quarter of
  /// FetchOptions::most.
  void widen(std::uint64_t delay_product) noexcept {
    first_ = std::max(options_.first, std::min(delay_product / 4, options_.most / 4));
  }

  /// Notes a read of decoded bytes [begin, end).
  /// @param fetches    whether something must be fetched for it
  /// @param under_way  reads that are not answered yet, this one included: 1 or more. A reader that
  ///                   asks for more before it has its answers comes out of order, by as many
  FetchMore read(std::uint64_t begin, std::uint64_t end, bool fetches,
                 std::uint64_t under_way = 1) noexcept {
    auto const length = end - begin;
    Reader reader{end, first_, first_, (under_way - 1) * length, true};
    auto const found = std::ranges::find_if(readers_, [&](Reader const& r) {
      auto const apart = std::max(r.apart, reader.apart);
      return r.used && begin + std::max(options_.nearby, apart + length) >= r.end &&
             begin <= r.end + std::max(options_.nearby, apart);
    });
    std::uint64_t before = 0;
    if (found != readers_.end()) {
      reader.end = std::max(end, found->end);
      reader.first = found->first;
      reader.beyond = fetches ? std::min(options_.most, 2 * found->beyond) : found->beyond;
      reader.apart = std::max(reader.apart, found->apart);
      if (begin > found->end + options_.nearby) before = begin - found->end;
    }
    // The one read longest ago goes.
    auto const gap = found != readers_.end() ? found : readers_.end() - 1;
    std::move_backward(readers_.begin(), gap, gap + 1);
    readers_.front() = reader;
    return {reader.beyond, before, reader.beyond > reader.first};
  }

  /// Whether a reader that has `beyond` bytes fetched at once is sure enough to go on that the next
  /// fetch may begin before it needs it.
  [[nodiscard]] bool runs(std::uint64_t beyond) const noexcept {
    return 2 * beyond >= options_.most;
  }

 private:
  struct Reader {
    std::uint64_t end = 0;    // of its last read
    std::uint64_t first = 0;  // what `beyond` was at first
    std::uint64_t beyond = 0;
    std::uint64_t apart = 0;  // how long those were that came before their turn
    bool used = false;
  };

  FetchOptions options_;
  std::uint64_t first_;
  std::array<Reader, 16> readers_{};  // the one that read last first
};

}  // namespace erofs_oci
