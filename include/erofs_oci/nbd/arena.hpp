// SPDX-License-Identifier: Apache-2.0
/// @file
/// ArenaRanges: which parts of the memory that a relay and its engines share are free.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <iterator>
#include <optional>
#include <vector>

namespace erofs_oci::nbd {

/// Hands out ranges of an arena, the first that fits.
///
/// @par Thread safety
/// None.
class ArenaRanges {
 public:
  static constexpr std::size_t granule = 4096;  ///< bytes; every range is rounded up to it

  /// @param size  of the arena in bytes, a multiple of `granule`
  explicit ArenaRanges(std::size_t size) : size_(size) {
    assert(size % granule == 0);
    if (size != 0) free_.push_back({0, size});
  }

  /// The start of a range of at least `length` bytes; empty if none is free.
  [[nodiscard]] std::optional<std::size_t> take(std::size_t length) {
    auto const wanted = rounded(length);
    if (!wanted) return std::nullopt;
    auto const range =
        std::ranges::find_if(free_, [&](Range const& each) { return each.size >= *wanted; });
    if (range == free_.end()) return std::nullopt;
    auto const at = range - free_.begin();
    free_.reserve(taken_ + 2);  // for all that can be free between those that are taken
    auto& found = free_[static_cast<std::size_t>(at)];
    auto const start = found.start;
    found.start += *wanted;
    found.size -= *wanted;
    if (found.size == 0) free_.erase(free_.begin() + at);
    ++taken_;
    return start;
  }

  /// Gives back what take() handed out for that length.
  void give_back(std::size_t start, std::size_t length) noexcept {
    auto const size = rounded(length).value_or(0);
    assert(size != 0 && start + size <= size_ && taken_ != 0);
    --taken_;
    auto next = std::ranges::lower_bound(free_, start, {}, &Range::start);
    assert(next == free_.end() || start + size <= next->start);
    assert(next == free_.begin() || end_of(*std::prev(next)) <= start);
    auto const joins_next = next != free_.end() && next->start == start + size;
    auto const joins_before = next != free_.begin() && end_of(*std::prev(next)) == start;
    if (joins_before) {
      auto const before = std::prev(next);
      before->size += size + (joins_next ? next->size : 0);
      if (joins_next) free_.erase(next);
    } else if (joins_next) {
      *next = {start, size + next->size};
    } else {
      free_.insert(next, {start, size});  // take() has reserved its place
    }
  }

 private:
  struct Range {
    std::size_t start;
    std::size_t size;
  };

  [[nodiscard]] static std::size_t end_of(Range const& range) noexcept {
    return range.start + range.size;
  }

  [[nodiscard]] std::optional<std::size_t> rounded(std::size_t length) const noexcept {
    if (length == 0) return granule;
    if (length > size_) return std::nullopt;
    return (length + granule - 1) / granule * granule;
  }

  std::size_t size_;
  std::size_t taken_ = 0;      // ranges
  std::vector<Range> free_{};  // ascending; no two of them touch
};

}  // namespace erofs_oci::nbd
