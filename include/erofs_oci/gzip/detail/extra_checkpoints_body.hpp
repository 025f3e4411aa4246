// SPDX-License-Identifier: Apache-2.0
/// @file
/// What gzip/extra_checkpoints.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/verified.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/gzip/window.hpp>

namespace erofs_oci {
namespace detail {

/// A checkpoint's place, to sort by.
[[nodiscard]] constexpr std::uint64_t place_of(ExtraCheckpoint const& point) noexcept {
  return point.start.bit_position();
}

/// Where the window of a checkpoint is.
struct WindowOrigin {
  bool is_extra = false;
  std::size_t number = 0;
};

}  // namespace detail

EROFS_OCI_BODY bool ExtraCheckpoints::add(ExtraCheckpoint point) {
  if (points_.size() == most || point.packed_window.size() > most_window_bytes - window_bytes_) {
    return false;
  }
  auto const after =
      std::ranges::upper_bound(points_, detail::place_of(point), {}, detail::place_of);
  auto const before = after == points_.begin() ? Checkpoint{} : std::prev(after)->start;
  if (!detail::checkpoint_fault(point.start, &before).empty()) return false;
  if (after != points_.end() && !detail::checkpoint_fault(after->start, &point.start).empty()) {
    return false;
  }
  window_bytes_ += point.packed_window.size();
  points_.insert(after, std::move(point));
  return true;
}

EROFS_OCI_BODY GzipIndex add_checkpoints(GzipIndex index, ExtraCheckpoints const& extra) {
  if (extra.empty() || index.first_is_assumed || index.checkpoints.empty()) return index;
  GzipIndex merged;
  std::vector<detail::WindowOrigin> places;
  auto const windows = std::make_shared<std::vector<Bytes>>();
  auto const last = index.checkpoints.size() - 1;
  auto left = extra.points();
  for (std::size_t i = 0; i <= last; ++i) {
    auto const piece_span = merged.checkpoints.size();
    merged.checkpoints.push_back(index.checkpoints[i]);
    merged.pieces_of.push_back(piece_span);
    places.push_back({false, i});
    auto const begin = index.checkpoints[i].bit_position();
    for (; !left.empty(); left = left.subspan(1)) {
      auto const& point = left.front();
      auto const at = detail::place_of(point);
      if (i < last && at >= index.checkpoints[i + 1].bit_position()) break;
      if (at <= begin) continue;  // the index has it
      merged.checkpoints.push_back(point.start);
      merged.pieces_of.push_back(piece_span);
      places.push_back({true, windows->size()});
      windows->push_back(point.packed_window);
    }
  }
  if (!check_checkpoints(merged.checkpoints)) return index;
  merged.window = [read = std::move(index.window), places = std::move(places), windows](
                      std::size_t i, std::span<std::byte, gzip_window_size> out) -> Result<void> {
    auto const& place = places.at(i);
    return place.is_extra ? unpack_window((*windows)[place.number], out) : read(place.number, out);
  };
  return merged;
}

EROFS_OCI_BODY std::vector<VerifiedChunk> add_rests(std::vector<VerifiedChunk> pieces,
                                                    ExtraCheckpoints const& extra) {
  std::vector<VerifiedChunk> all;
  all.reserve(pieces.size() + extra.points().size());
  auto left = extra.points();
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    auto const begin = pieces[i].begin;
    auto const end = pieces[i].end;
    auto const next = i + 1 < pieces.size() ? std::min(end, pieces[i + 1].begin) : end;
    all.push_back(std::move(pieces[i]));
    for (; !left.empty() && left.front().start.first_byte() < next; left = left.subspan(1)) {
      auto const from = left.front().start.first_byte();
      if (from <= all.back().begin || from < begin || left.front().rest == Digest()) continue;
      all.push_back({from, end, left.front().rest});
    }
  }
  return all;
}

}  // namespace erofs_oci
