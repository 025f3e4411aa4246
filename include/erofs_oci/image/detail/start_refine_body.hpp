// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/start_refine.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/gzip/find_checkpoints.hpp>
#include <erofs_oci/image/start_fetcher.hpp>
#include <erofs_oci/image/start_list.hpp>
#include <erofs_oci/image/start_refine.hpp>

namespace erofs_oci {
namespace detail {

/// What was read, sorted, with the place in the order of the first read of each range.
struct OrderedReads {
  std::vector<ByteRange> ranges;
  std::vector<std::size_t> order;
};

[[nodiscard]] inline OrderedReads ordered_reads(std::span<ByteRange const> reads) {
  std::vector<std::pair<ByteRange, std::size_t>> sorted;
  for (std::size_t i = 0; i < reads.size(); ++i) sorted.emplace_back(reads[i], i);
  std::ranges::sort(sorted, {}, [](auto const& one) { return one.first.begin; });
  OrderedReads joined;
  for (auto const& [range, order] : sorted) {
    if (range.begin >= range.end) continue;
    if (!joined.ranges.empty() && range.begin <= joined.ranges.back().end) {
      joined.ranges.back().end = std::max(joined.ranges.back().end, range.end);
      joined.order.back() = std::min(joined.order.back(), order);
      continue;
    }
    joined.ranges.push_back(range);
    joined.order.push_back(order);
  }
  return joined;
}

/// The checkpoints there were and those found; if there is no room, of the former only those at
/// which a range of the list begins.
[[nodiscard]] inline ExtraCheckpoints join_checkpoints(ExtraCheckpoints const& before,
                                                       std::vector<ExtraCheckpoint> const& found,
                                                       StartList const& list, Digest const& layer) {
  auto all = before;
  if (std::ranges::all_of(found, [&](auto const& point) { return all.add(point); })) return all;
  all = {};
  for (auto const& point : found) all.add(point);
  for (auto const& point : before.points()) {
    auto const used = std::ranges::any_of(list.ranges(), [&](StartRange const& range) {
      return range.layer == layer && range.begin == point.start.first_byte();
    });
    if (used) all.add(point);
  }
  return all;
}

}  // namespace detail

EROFS_OCI_BODY Result<RefinedStart> refine_start(StartList const& list, StartLayer const& layer,
                                                 std::span<ByteRange const> reads,
                                                 AnySource const& blob) {
  auto const joined = detail::ordered_reads(reads);
  EROFS_OCI_TRY_ASSIGN(auto found, layer.find_checkpoints(blob, joined.ranges));
  if (found.points.empty() && layer.extra.empty()) return RefinedStart{list, {}};
  std::ranges::sort(found.needed, {}, [&](FoundCheckpoints::Needed const& one) {
    return std::pair(joined.order[one.range], one.blob.begin);
  });
  RefinedStart refined;
  bool added = false;
  for (auto const& range : list.ranges()) {
    if (range.layer != layer.digest) {
      refined.list.add(range);
    } else if (!std::exchange(added, true)) {
      for (auto const& [number, bytes] : found.needed) {
        refined.list.add({layer.digest, bytes.begin, bytes.end});
      }
    }
  }
  refined.extra = detail::join_checkpoints(layer.extra, found.points, refined.list, layer.digest);
  return refined;
}

}  // namespace erofs_oci
