// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sparse members: the old GNU map in header blocks, and the PAX forms 0.0, 0.1 and 1.0. No I/O.
///
/// All of them say the same: the file has `size` bytes, and the member's data are the segments one
/// after another; the rest are holes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/header.hpp>

namespace erofs_oci::tar {

/// Most segments of one file: 4 MiB of memory; a file of 128 GiB with every other MiB a hole has as
/// many.
inline constexpr std::size_t max_segments = 1 << 18;

/// A run of data in a sparse file.
struct Segment {
  std::uint64_t offset = 0;  ///< in the file
  std::uint64_t length = 0;  ///< bytes; 0 only marks the file's end

  friend bool operator==(Segment const&, Segment const&) = default;
};

/// What the `GNU.sparse.*` records of one extended header say.
struct SparseRecords {
  std::optional<std::string> name;         ///< the real path: 0.1 and 1.0
  std::optional<std::uint64_t> real_size;  ///< of the file: `size` (0.x) or `realsize` (1.0)
  std::optional<std::uint64_t> major;      ///< 1 means that the map is in front of the data
  std::optional<std::uint64_t> minor;
  std::vector<Segment> segments;  ///< from 0.0 and 0.1

  friend bool operator==(SparseRecords const&, SparseRecords const&) = default;

  /// Takes one record; `key` without `GNU.sparse.`. False if its value makes no sense.
  [[nodiscard]] bool take(std::string_view key, std::string_view value);

  /// Whether the member's data begin with a map.
  [[nodiscard]] bool map_in_data() const noexcept { return major == 1u; }

 private:
  std::optional<std::uint64_t> offset_;  // 0.0: waits for its numbytes
};

inline bool SparseRecords::take(std::string_view key, std::string_view value) {
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
      auto const comma = std::min(value.find(','), value.size());
      auto const parsed = decimal(value.substr(0, comma));
      if (!parsed) return false;
      part = *parsed;
      value.remove_prefix(std::min(comma + 1, value.size()));
    }
    if (segments.size() >= max_segments) return false;
    segments.push_back({pair[0], pair[1]});
  }
  return true;
}

/// The old GNU map, fed with the header and then with each extension block.
/// @spec{GNU tar manual, Basic Tar Format: struct oldgnu_header, struct sparse_header}
class OldSparseMap {
 public:
  /// Takes the four segments and the real size of a header; says whether an extension follows.
  /// @error{Errc::corrupt, a number is none}
  [[nodiscard]] Result<bool> take_header(Block header) {
    auto const size = field_number(header.subspan<483, 12>());
    if (!size || *size < 0) return fail(Errc::corrupt, "sparse map: real size");
    real_size_ = static_cast<std::uint64_t>(*size);
    return take(header.subspan<386, 96>(), header[482]);
  }

  /// Takes the 21 segments of an extension block; says whether another one follows.
  /// @error{Errc::corrupt, a number is none}
  /// @error{Errc::unsupported, there are more than `max_segments`}
  [[nodiscard]] Result<bool> take_extension(Block block) {
    return take(block.first<504>(), block[504]);
  }

  [[nodiscard]] std::uint64_t real_size() const noexcept { return real_size_; }
  [[nodiscard]] std::vector<Segment> const& segments() const noexcept { return segments_; }

 private:
  [[nodiscard]] Result<bool> take(std::span<std::byte const> slots, std::byte more) {
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
      segments_.push_back(
          {static_cast<std::uint64_t>(*offset), static_cast<std::uint64_t>(*length)});
    }
    return more != std::byte{0};
  }

  std::uint64_t real_size_ = 0;
  std::vector<Segment> segments_;
};

/// The map in front of the data of a PAX 1.0 member, fed block by block: decimal numbers, one a
/// line: how many segments, then offset and length of each; padded to a block.
class DataSparseMap {
 public:
  /// Takes the next block; says whether the map goes on in another one.
  /// @error{Errc::corrupt, a line is no number}
  /// @error{Errc::unsupported, there are more than `max_segments`}
  [[nodiscard]] Result<bool> take(Block block) {
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
      if (auto const ok = add(*number); !ok) return fail(ok.error());
    }
    return !complete();
  }

  [[nodiscard]] std::vector<Segment> const& segments() const noexcept { return segments_; }

 private:
  [[nodiscard]] bool complete() const noexcept {
    return count_ && segments_.size() == *count_ && !offset_;
  }

  [[nodiscard]] Result<void> add(std::uint64_t number) {
    if (!count_) {
      if (number > max_segments) {
        return fail(Errc::unsupported, "sparse map of " + std::to_string(number) + " segments");
      }
      count_ = number;
    } else if (!offset_) {
      offset_ = number;
    } else {
      segments_.push_back({*std::exchange(offset_, std::nullopt), number});
    }
    return {};
  }

  std::string line_;
  std::optional<std::uint64_t> count_;
  std::optional<std::uint64_t> offset_;
  std::vector<Segment> segments_;
};

/// Where the segments of a file of `real_size` bytes lie, given that `packed` bytes of data begin
/// at `tar_offset`. Segments that touch become one.
/// @error{Errc::corrupt, segments overlap\, are out of order\, leave the file\, or their lengths do
/// not add up to `packed`}
[[nodiscard]] inline Result<std::vector<Extent>> place_segments(
    std::vector<Segment> const& segments, std::uint64_t real_size, std::uint64_t tar_offset,
    std::uint64_t packed) {
  std::vector<Extent> extents;
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
    if (length > 0 && !extents.empty() && offset == end) {
      extents.back().length += length;
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

}  // namespace erofs_oci::tar
