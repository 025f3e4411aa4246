// SPDX-License-Identifier: Apache-2.0
/// @file
/// ConcatList: sources of one type end to end, their number known when running.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/stream_exact.hpp>

namespace erofs_oci {

/// The parts of a list in turn, as one run of bytes; none is a valid, empty source.
///
/// Finds the first part by binary search. As Concat, it makes one inner read for each part that is
/// touched, in order, and never moves bytes up when a part gives too few.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource Part>
class ConcatList {
 public:
  /// Owns the parts.
  /// @error{std::errc::value_too_large, the sizes add up to 2^64 or more}
  [[nodiscard]] static Result<ConcatList> make(std::vector<Part> parts) {
    std::vector<std::uint64_t> ends;
    ends.reserve(parts.size());
    std::uint64_t total = 0;
    for (auto const& part : parts) {
      auto const sum = checked_add(total, part.size());
      if (!sum) return fail(make_error_code(std::errc::value_too_large), "concat: size");
      total = *sum;
      ends.push_back(total);
    }
    return ConcatList(std::move(parts), std::move(ends));
  }

  /// @name RandomAccessSource
  /// @{

  /// @error{Errc::truncated, a part gives fewer bytes than its size promises}
  [[nodiscard]] std::uint64_t size() const noexcept { return ends_.empty() ? 0 : ends_.back(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    out = out.first(readable(size(), offset, out.size()));
    return read_parts(out, [&](auto const& f) { for_each_touched(offset, out.size(), f); });
  }

  /// One inner stream a part.
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    return stream_parts(sink, [&](auto const& f) { for_each_touched(offset, length, f); });
  }

  /// Whether any part is.
  [[nodiscard]] bool is_remote() const {
    return std::ranges::any_of(parts_, [](Part const& part) { return erofs_oci::is_remote(part); });
  }

  [[nodiscard]] std::string describe() const {
    return std::to_string(parts_.size()) + " parts" +
           (parts_.empty() ? "" : ", the first: " + erofs_oci::describe(parts_.front()));
  }
  /// @}

 private:
  ConcatList(std::vector<Part> parts, std::vector<std::uint64_t> ends) noexcept
      : parts_(std::move(parts)), ends_(std::move(ends)) {}

  /// As in Concat.
  template <class F>
  void for_each_touched(std::uint64_t offset, std::uint64_t length, F f) const {
    auto const end = offset + streamable(size(), offset, length);
    auto const first = std::ranges::upper_bound(ends_, offset);
    for (auto i = static_cast<std::size_t>(first - ends_.begin()); offset < end; ++i) {
      auto const begin = i == 0 ? 0 : ends_[i - 1];
      auto const to = std::min(end, ends_[i]);
      if (offset < to && !f(parts_[i], offset - begin, to - offset)) return;
      offset = to;
    }
  }

  std::vector<Part> parts_;
  std::vector<std::uint64_t> ends_;  // ends_[i] is where part i ends; ascending
};

}  // namespace erofs_oci
