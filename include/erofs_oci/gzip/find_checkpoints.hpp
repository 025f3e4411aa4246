// SPDX-License-Identifier: Apache-2.0
/// @file
/// find_checkpoints: finds where reads of a gzip blob could have begun to decode.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/gzip/block_decoder.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/decoder.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/gzip/fetch_policy.hpp>
#include <erofs_oci/gzip/inflater.hpp>
#include <erofs_oci/gzip/layer_index.hpp>
#include <erofs_oci/gzip/window.hpp>

namespace erofs_oci {

/// Bytes [begin, end) of a stream.
struct ByteRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  friend bool operator==(ByteRange const&, ByteRange const&) = default;
};

/// How find_checkpoints() works.
struct FindOptions {
  /// A checkpoint must save so many compressed bytes, those between the last ones that were needed
  /// and itself. Default: 32 KiB, a piece of an index.
  std::uint64_t worth = index_piece_size;

  /// Compressed bytes before the last block boundary in front of a read in which a boundary with a
  /// smaller window may be taken instead. Default: 8 KiB.
  std::uint64_t leeway = 8 * 1024;

  /// A span with more decoded bytes is left as it is. Default: 16 MiB, which are held.
  std::uint64_t most_decoded = 16 << 20;

  /// Bytes of a piece of the index; 0: each of its spans is one piece. Default: 32 KiB
  std::uint64_t piece = index_piece_size;

  /// Checkpoints found at most. Default: 512
  std::size_t most = 512;
};

/// What find_checkpoints() has found.
struct FoundCheckpoints {
  std::vector<ExtraCheckpoint> points;    ///< by rising place; not in the index; without `rest`
  std::vector<std::uint64_t> piece_ends;  ///< for each, the end of the piece in which it lies

  /// What decoding the ranges takes of the blob, by rising number of the range; of one that crosses
  /// checkpoints of the index, in parts.
  struct Needed {
    std::size_t range = 0;  ///< its number
    ByteRange blob;
  };
  std::vector<Needed> needed;
};

namespace detail {

/// Decodes one span as far as reads of it need, and notes where blocks begin.
template <BlockDecoder D, Inflater I, RandomAccessSource Blob>
class SpanWalk {
 public:
  /// Reads nothing yet.
  SpanWalk(Blob const& blob, SpanMap const& map, std::size_t span)
      : blob_(blob),
        start_(map.index->checkpoints[span]),
        base_(map.begin(span)),
        map_(map),
        span_(span),
        blob_end_(map.end(span)) {}

  /// Begins at the span's checkpoint.
  [[nodiscard]] Result<void> begin(Bytes window) {
    decoded_ = std::move(window);
    EROFS_OCI_TRY(read_more());
    used_ = static_cast<std::size_t>(start_.in - base_);
    if (compressed_.size() < used_) return fail(Errc::truncated, "find checkpoints");
    return decoder_.start(start_.bits, used_ > 0 ? compressed_[0] : std::byte{0}, decoded_);
  }

  /// Decodes up to `out` of the stream. Yields how much of the blob that has taken.
  /// @error{Errc::unsupported, the member ends before that}
  [[nodiscard]] Result<std::uint64_t> decode_to(std::uint64_t out) {
    while (out_end() < out) {
      if (ended_) return fail(Errc::unsupported, "find checkpoints: a span of several members");
      auto const size = decoded_.size();
      auto const most = static_cast<std::size_t>(std::min<std::uint64_t>(out - out_end(), 1 << 17));
      decoded_.resize(size + most);
      auto const step = decoder_.decode(std::span(std::as_const(compressed_)).subspan(used_),
                                        std::span(decoded_).subspan(size));
      decoded_.resize(size + (step ? step->produced : 0));
      if (!step) return fail(step.error());
      used_ += step->consumed;
      ended_ = step->end;
      if (step->block_end) EROFS_OCI_TRY(begin_block(step->unread_bits));
      auto const goes_on = step->consumed > 0 || step->produced > 0 || step->block_end || ended_;
      if (!goes_on) EROFS_OCI_TRY(read_more());
    }
    return base_ + used_;
  }

  /// The boundaries that were passed, by rising place.
  [[nodiscard]] std::span<Checkpoint const> boundaries() const noexcept { return boundaries_; }

  /// A boundary that was passed, with its window.
  [[nodiscard]] ExtraCheckpoint pack(Checkpoint const& point) {
    auto const end = gzip_window_size + static_cast<std::size_t>(point.out - start_.out);
    auto const window =
        std::span(std::as_const(decoded_)).first(end).template last<gzip_window_size>();
    auto const at = static_cast<std::size_t>(point.in - base_);
    auto const look = [&] {
      auto const behind = std::span(std::as_const(compressed_)).subspan(at);
      auto const first = point.bits > 0 ? compressed_[at - 1] : std::byte{0};
      auto const all = base_ + compressed_.size() == blob_end_;
      return find_window_use(inflater_, point.bits, first, behind,
                             all ? AfterBytes::next_span : AfterBytes::more);
    };
    auto use = look();
    if (use && !*use && read_more()) use = look();
    return {point, pack_window(window, use && *use ? **use : WindowUse{}.set())};
  }

 private:
  [[nodiscard]] std::uint64_t out_end() const noexcept {
    return start_.out + decoded_.size() - gzip_window_size;
  }

  // Reads to the end of a piece.
  [[nodiscard]] Result<void> read_more() {
    auto const at = base_ + compressed_.size();
    auto const left = blob_end_ - std::min(blob_end_, at);
    if (left == 0) return fail(Errc::truncated, "find checkpoints");
    Bytes bytes(static_cast<std::size_t>(std::min(map_.granule_end(span_, at) - at, left)));
    EROFS_OCI_TRY(read_exact(blob_, at, bytes));
    compressed_.insert(compressed_.end(), bytes.begin(), bytes.end());
    return {};
  }

  [[nodiscard]] Result<void> begin_block(unsigned unread_bits) {
    used_ -= unread_bits / 8;
    auto const bits = unread_bits % 8;
    boundaries_.push_back({base_ + used_, out_end(), static_cast<std::uint8_t>(bits)});
    auto const first = bits > 0 ? compressed_[used_ - 1] : std::byte{0};
    return decoder_.start(bits, first, std::span(std::as_const(decoded_)).last(gzip_window_size));
  }

  Blob const& blob_;
  Checkpoint const start_;
  std::uint64_t const base_;  // of `compressed_` in the blob
  SpanMap const& map_;
  std::size_t const span_;
  std::uint64_t const blob_end_;  // of the span
  D decoder_;
  I inflater_;
  Bytes compressed_;
  std::size_t used_ = 0;
  Bytes decoded_;  // the window, then all of the span so far
  bool ended_ = false;
  std::vector<Checkpoint> boundaries_;
};

/// Ranges of the decoded stream within one span.
struct SpanReads {
  struct Part {
    std::size_t range = 0;  ///< of which it is a part
    ByteRange decoded;
  };
  std::size_t span = 0;
  std::vector<Part> parts;
};

/// find_checkpoints() for one span.
/// @param most  checkpoints
/// @error{Errc::unsupported, it has several members\, or too much would be held}
template <BlockDecoder D, Inflater I, RandomAccessSource Blob>
[[nodiscard]] Result<FoundCheckpoints> find_in_span(Blob const& blob, SpanMap const& map,
                                                    SpanReads const& reads,
                                                    FindOptions const& options, std::size_t most) {
  auto const& start = map.index->checkpoints[reads.span];
  if (reads.parts.back().decoded.end - start.out > options.most_decoded) {
    return fail(Errc::unsupported, "find checkpoints: a span too large to be held");
  }
  Bytes window(gzip_window_size);
  EROFS_OCI_TRY(map.index->window(reads.span, std::span<std::byte, gzip_window_size>(window)));
  SpanWalk<D, I, Blob> walk(blob, map, reads.span);
  EROFS_OCI_TRY(walk.begin(std::move(window)));
  FoundCheckpoints found;
  auto begin = start.first_byte();  // of what is needed without a gap
  auto end = begin;
  for (auto const& [range, decoded] : reads.parts) {
    EROFS_OCI_TRY(walk.decode_to(decoded.begin));
    std::optional<ExtraCheckpoint> best;
    std::uint64_t least = 0;
    auto const passed = walk.boundaries();
    constexpr std::size_t looks = 4;
    for (auto const& point : passed.last(std::min(passed.size(), looks))) {
      auto const before = passed.back().in - point.in;
      if (found.points.size() == most || before > options.leeway) continue;
      if (point.first_byte() < end + options.worth) continue;
      auto packed = walk.pack(point);
      auto const cost = packed.packed_window.size() + before / 2;
      if (best && cost >= least) continue;
      best = std::move(packed);
      least = cost;
    }
    if (best) {
      begin = best->start.first_byte();
      found.piece_ends.push_back(map.granule_end(reads.span, begin));
      found.points.push_back(*std::move(best));
    }
    EROFS_OCI_TRY_ASSIGN(end, walk.decode_to(decoded.end));
    found.needed.push_back({range, {begin, end}});
  }
  return found;
}

/// The same without decoding: no checkpoints, and a guess of what is needed.
[[nodiscard]] inline FoundCheckpoints guess_needs(SpanMap const& map, SpanReads const& reads) {
  FoundCheckpoints found;
  for (auto const& [range, decoded] : reads.parts) {
    found.needed.push_back({range, {map.begin(reads.span), map.needed(reads.span, decoded.end)}});
  }
  return found;
}

/// The ranges, cut where spans begin.
[[nodiscard]] inline std::vector<SpanReads> reads_by_span(GzipIndex const& index,
                                                          std::span<ByteRange const> ranges) {
  std::vector<SpanReads> reads;
  auto const& points = index.checkpoints;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    for (auto at = ranges[i].begin; at < ranges[i].end;) {
      auto const span = index.span_of(at);
      auto const last = span + 1 == points.size();
      auto const end = last ? ranges[i].end : std::min(ranges[i].end, points[span + 1].out);
      if (reads.empty() || reads.back().span != span) reads.push_back({span, {}});
      reads.back().parts.push_back({i, {at, end}});
      at = end;
    }
  }
  return reads;
}

}  // namespace detail

/// Finds, for ranges of the decoded stream that were read, block boundaries close in front of them
/// where that saves compressed bytes, and how much of the blob they take then. Reads the blob up to
/// the ends of pieces of `options.piece` bytes, which are counted as those of the index. In a
/// span of several members, or of which too much would be held, nothing is found, and what is
/// needed is a guess.
/// @param blob    as it is stored, and right: nothing is checked here
/// @param index   of the blob; check_checkpoints() finds no fault in it
/// @param ranges  sorted, none touches the next one
/// @error{as `blob`, as there}
/// @error{Errc::corrupt, it is no gzip data}
template <BlockDecoder D = DefaultBlockDecoder, Inflater I = DefaultInflater,
          RandomAccessSource Blob>
[[nodiscard]] Result<FoundCheckpoints> find_checkpoints(Blob const& blob, GzipIndex const& index,
                                                        std::span<ByteRange const> ranges,
                                                        FindOptions const& options = {}) {
  FoundCheckpoints found;
  SpanMap const map{&index, blob.size(), 0, options.piece};
  for (auto const& reads : detail::reads_by_span(index, ranges)) {
    auto in_span =
        detail::find_in_span<D, I>(blob, map, reads, options, options.most - found.points.size());
    if (!in_span && in_span.error().code == Errc::unsupported) {
      in_span = detail::guess_needs(map, reads);
    }
    if (!in_span) return fail(std::move(in_span).error());
    std::ranges::move(in_span->points, std::back_inserter(found.points));
    std::ranges::copy(in_span->piece_ends, std::back_inserter(found.piece_ends));
    std::ranges::move(in_span->needed, std::back_inserter(found.needed));
  }
  return found;
}

}  // namespace erofs_oci
