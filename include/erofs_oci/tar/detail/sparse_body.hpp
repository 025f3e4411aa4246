// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tar/sparse.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/header.hpp>
#include <erofs_oci/tar/sparse.hpp>

namespace erofs_oci::tar {

EROFS_OCI_BODY bool SparseRecords::take(std::string_view key, std::string_view value) {
  auto const number = [&](std::optional<std::uint64_t>& field) {
    field = decimal(value);
    return field.has_value();
  };
  if (key == "name") {
    name = std::string(value);
    return !value.empty() && value.find('\0') == std::string_view::npos;
  }
  if (key == "size" || key == "realsize") return number(real_size);
  if (key == "major") return number(major);
  if (key == "minor") return number(minor);
  if (key == "offset") return !offset_ && number(offset_);
  if (key == "numbytes") {
    auto const length = decimal(value);
    if (!length || !offset_ || segments.size() >= max_segments) return false;
    segments.push_back({*std::exchange(offset_, std::nullopt), *length});
    return true;
  }
  if (key != "map") return true;
  segments.clear();
  while (!value.empty()) {
    std::uint64_t pair[2]{};
    for (auto& part : pair) {
      auto const parsed = decimal(take_part(value, ','));
      if (!parsed) return false;
      part = *parsed;
    }
    if (segments.size() >= max_segments) return false;
    segments.push_back({pair[0], pair[1]});
  }
  return true;
}

EROFS_OCI_BODY Result<bool> OldSparseMap::take_header(Block header) {
  auto const size = field_number(header.subspan<483, 12>());
  if (!size || *size < 0) return fail(Errc::corrupt, "sparse map: real size");
  real_size_ = static_cast<std::uint64_t>(*size);
  return take(header.subspan<386, 96>(), header[482]);
}

EROFS_OCI_BODY Result<bool> OldSparseMap::take(std::span<std::byte const> slots, std::byte more) {
  for (; !slots.empty(); slots = slots.subspan(24)) {
    if (slots[0] == std::byte{0}) break;
    auto const offset = field_number(slots.subspan(0, 12));
    auto const length = field_number(slots.subspan(12, 12));
    if (!offset || !length || *offset < 0 || *length < 0) {
      return fail(Errc::corrupt, "sparse map: segment " + std::to_string(segments_.size()));
    }
    if (segments_.size() >= max_segments) {
      return fail(Errc::unsupported,
                  "sparse map of more than " + std::to_string(max_segments) + " segments");
    }
    segments_.push_back({static_cast<std::uint64_t>(*offset), static_cast<std::uint64_t>(*length)});
  }
  return more != std::byte{0};
}

EROFS_OCI_BODY Result<bool> DataSparseMap::take(Block block) {
  for (auto const c : as_text(block)) {
    if (complete()) return false;  // the rest is padding
    if (c != '\n') {
      line_ += c;
      if (line_.size() > 19) return fail(Errc::corrupt, "sparse map: line too long");
      continue;
    }
    auto const number = decimal(line_);
    if (!number) return fail(Errc::corrupt, "sparse map: line " + printable(line_));
    line_.clear();
    if (!count_) {
      if (*number > max_segments) {
        return fail(Errc::unsupported, "sparse map of " + std::to_string(*number) + " segments");
      }
      count_ = number;
    } else if (!offset_) {
      offset_ = number;
    } else {
      segments_.push_back({*std::exchange(offset_, std::nullopt), *number});
    }
  }
  return !complete();
}

EROFS_OCI_BODY Result<std::vector<Extent>> place_segments(std::vector<Segment> const& segments,
                                                          std::uint64_t real_size,
                                                          std::uint64_t tar_offset,
                                                          std::uint64_t packed) {
  std::vector<Extent> extents;
  extents.reserve(segments.size());
  std::uint64_t end = 0;   // of the last segment, in the file
  std::uint64_t used = 0;  // of the data
  for (auto const& [offset, length] : segments) {
    auto const next = checked_add(offset, length);
    if (offset < end || !next || *next > real_size) {
      return fail(Errc::corrupt, "sparse map: segment of " + std::to_string(length) + " bytes at " +
                                     std::to_string(offset) + " in a file of " +
                                     std::to_string(real_size) + " bytes");
    }
    if (length > packed - used) {
      return fail(Errc::corrupt, "sparse map: more segments than the member has data");
    }
    auto* const last = extents.empty() ? nullptr : &extents.back();
    if (last != nullptr && last->file_offset + last->length == offset) {
      last->length += length;
    } else if (length > 0) {
      extents.push_back({offset, tar_offset + used, length});
    }
    end = *next;
    used += length;
  }
  if (used != packed) {
    return fail(Errc::corrupt, "sparse map: segments of " + std::to_string(used) +
                                   " bytes in a member of " + std::to_string(packed));
  }
  return extents;
}

namespace detail {

/// A range of a file.
struct FileRange {
  std::uint64_t begin;
  std::uint64_t end;
};

/// What of a file, in chunks of `chunk` bytes, has to be copied: ranges of whole chunks, the last
/// one up to the end of the file's last block; ascending, joined.
[[nodiscard]] inline std::vector<FileRange> ranges_to_copy(std::span<Extent const> extents,
                                                           std::uint64_t size,
                                                           std::uint64_t chunk) {
  std::vector<FileRange> ranges;
  auto const up = [](std::uint64_t n, std::uint64_t unit) { return (n + unit - 1) / unit * unit; };
  auto const add = [&](std::uint64_t begin, std::uint64_t end) {
    end = std::min(end, up(size, block_size));
    if (!ranges.empty() && begin <= ranges.back().end) {
      ranges.back().end = std::max(ranges.back().end, end);
    } else {
      ranges.push_back({begin, end});
    }
  };
  for (auto const& [file_offset, tar_offset, length] : extents) {
    auto const end = file_offset + length;
    auto const first = file_offset / chunk * chunk;
    // What lies between these two can be read in place.
    auto const from = up(file_offset, chunk);
    auto const to = end == size ? end : end / chunk * chunk;
    if ((tar_offset - file_offset) % block_size != 0 || from >= to) {
      add(first, up(end, chunk));
      continue;
    }
    if (first < from) add(first, from);
    if (to < end) add(to, up(end, chunk));
  }
  return ranges;
}

}  // namespace detail

EROFS_OCI_BODY Result<SparseCopier> SparseCopier::make(std::span<Extent const> extents,
                                                       std::uint64_t size) {
  constexpr std::uint64_t per_chunk = 8;
  std::vector<detail::FileRange> ranges;
  auto least = std::numeric_limits<std::uint64_t>::max();
  for (auto chunk = block_size; chunk <= max_copied; chunk *= 2) {
    auto found = detail::ranges_to_copy(extents, size, chunk);
    std::uint64_t bytes = 0;
    for (auto const& range : found) bytes += range.end - range.begin;
    if (chunk == block_size && bytes > max_copied) {
      return fail(Errc::unsupported,
                  "sparse segments that do not begin and end at multiples of 512: " +
                      std::to_string(bytes) + " bytes, more than " + std::to_string(max_copied));
    }
    auto const cost = bytes + size / chunk * per_chunk;
    if (bytes > max_copied || cost >= least) continue;
    least = cost;
    ranges = std::move(found);
  }
  SparseCopier copier;
  auto extent = extents.begin();
  for (auto const& [begin, end] : ranges) {
    for (; extent != extents.end(); ++extent) {
      auto const from = std::max(begin, extent->file_offset);
      auto const to = std::min(end, extent->file_offset + extent->length);
      if (from < to) {
        copier.pieces_.push_back({extent->tar_offset + (from - extent->file_offset), to - from,
                                  copier.copies_.size(), from - begin});
      }
      if (extent->file_offset + extent->length > end) break;  // the next range may need it, too
    }
    copier.copies_.push_back({begin, Bytes(static_cast<std::size_t>(end - begin))});
  }
  return copier;
}

EROFS_OCI_BODY void SparseCopier::take(std::uint64_t offset, std::span<std::byte const> bytes) {
  for (; next() - offset < bytes.size(); ++at_) {
    auto& piece = pieces_[at_];
    auto const from = bytes.subspan(static_cast<std::size_t>(piece.tar_offset - offset));
    auto const n = std::min<std::uint64_t>(piece.length, from.size());
    std::ranges::copy(
        from.first(static_cast<std::size_t>(n)),
        copies_[piece.copy].bytes.begin() + static_cast<std::ptrdiff_t>(piece.offset));
    piece.tar_offset += n;
    piece.offset += n;
    piece.length -= n;
    if (piece.length > 0) return;
  }
}

}  // namespace erofs_oci::tar
