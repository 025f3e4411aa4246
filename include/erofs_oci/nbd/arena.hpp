// SPDX-License-Identifier: Apache-2.0
/// @file
/// ArenaRanges: which parts of the memory that a relay and its engines share are free.
#pragma once

#include <cassert>
#include <cstddef>
#include <iterator>
#include <map>
#include <optional>

namespace erofs_oci::nbd {

/// Hands out ranges of an arena, the first that fits.
///
/// @par Thread safety
/// None.
class ArenaRanges {
 public:
  static constexpr std::size_t granule = 4096;  ///< bytes; every range is rounded up to it

  /// @param size  of the arena in bytes, a multiple of `granule`
  explicit ArenaRanges(std::size_t size) : size_(size), free_bytes_(size) {
    assert(size % granule == 0);
    if (size != 0) free_.emplace(0, size);
  }

  /// The start of a range of at least `length` bytes; empty if none is free.
  [[nodiscard]] std::optional<std::size_t> take(std::size_t length) {
    auto const wanted = rounded(length);
    if (!wanted) return std::nullopt;
    for (auto range = free_.begin(); range != free_.end(); ++range) {
      if (range->second < *wanted) continue;
      auto const [start, room] = *range;
      free_.erase(range);
      if (room > *wanted) free_.emplace(start + *wanted, room - *wanted);
      free_bytes_ -= *wanted;
      return start;
    }
    return std::nullopt;
  }

  /// Gives back what take() handed out for that length.
  void give_back(std::size_t start, std::size_t length) {
    auto size = rounded(length).value_or(0);
    assert(size != 0 && start + size <= size_);
    free_bytes_ += size;
    auto next = free_.lower_bound(start);
    if (next != free_.begin()) {
      auto const before = std::prev(next);
      assert(before->first + before->second <= start);
      if (before->first + before->second == start) {
        start = before->first;
        size += before->second;
        free_.erase(before);
      }
    }
    assert(next == free_.end() || start + size <= next->first);
    if (next != free_.end() && start + size == next->first) {
      size += next->second;
      free_.erase(next);
    }
    free_.emplace(start, size);
  }

  [[nodiscard]] std::size_t free_bytes() const noexcept { return free_bytes_; }

 private:
  [[nodiscard]] std::optional<std::size_t> rounded(std::size_t length) const noexcept {
    if (length == 0) return granule;
    if (length > size_) return std::nullopt;
    return (length + granule - 1) / granule * granule;
  }

  std::size_t size_;
  std::size_t free_bytes_;
  std::map<std::size_t, std::size_t> free_{};  // start -> length; no two of them touch
};

}  // namespace erofs_oci::nbd
