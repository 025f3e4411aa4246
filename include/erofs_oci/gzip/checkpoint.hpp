// SPDX-License-Identifier: Apache-2.0
/// @file
/// Checkpoint and GzipIndex: where a gzip blob can be entered.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// Bytes of history that deflate can refer back to.
inline constexpr std::size_t gzip_window_size = 32768;

/// The start of a deflate block, where inflating can begin once the window before it is known.
struct Checkpoint {
  std::uint64_t in = 0;   ///< offset in the blob of the first whole byte of the block
  std::uint64_t out = 0;  ///< offset in the decoded stream where the block starts
  std::uint8_t bits = 0;  ///< 0..7: how many high bits of byte `in` - 1 belong to the block

  /// The first byte of the blob that is needed to start here.
  [[nodiscard]] constexpr std::uint64_t first_byte() const noexcept {
    return bits == 0 ? in : in - 1;
  }

  /// The block's start, in bits from the blob's start. Valid while `in` < 2^61.
  [[nodiscard]] constexpr std::uint64_t bit_position() const noexcept { return 8 * in - bits; }

  friend bool operator==(Checkpoint const&, Checkpoint const&) = default;
};

/// Fills in the 32 KiB of decoded data before checkpoint number `i`, newest byte last.
///
/// Called from any thread, several at a time.
using WindowReader =
    std::function<Result<void>(std::size_t i, std::span<std::byte, gzip_window_size> window)>;

/// All checkpoints of one blob. A *span* is what lies between two of them: span i starts at
/// checkpoint i and ends where the next one starts, the last one at the end of the blob.
struct GzipIndex {
  std::vector<Checkpoint> checkpoints;  ///< as check_checkpoints() demands; never empty
  WindowReader window;                  ///< windows are read when needed, never all kept

  /// The first checkpoint's place is only assumed to be 10, right behind a gzip header without any
  /// optional field; it must be looked up in the blob (zinfo version 1).
  bool first_is_assumed = false;

  /// For each span, the number of the one from whose first byte the pieces are counted in which its
  /// bytes are checked: itself, but for what add_checkpoints() has cut off another one. Empty: each
  /// itself.
  std::vector<std::size_t> pieces_of{};

  /// The same for one span.
  [[nodiscard]] std::size_t piece_span(std::size_t span) const noexcept {
    return pieces_of.empty() ? span : pieces_of[span];
  }

  /// The number of the span that holds byte `offset` of the decoded stream: the last checkpoint
  /// that starts at or before it.
  [[nodiscard]] std::size_t span_of(std::uint64_t offset) const noexcept {
    auto const after = std::ranges::upper_bound(checkpoints, offset, {}, &Checkpoint::out);
    return static_cast<std::size_t>(after - checkpoints.begin()) - 1;
  }

  /// Every checkpoint that is more than `span` decoded bytes behind the one before it that is kept;
  /// the first one always.
  [[nodiscard]] GzipIndex spaced(std::uint64_t span) const {
    GzipIndex kept{{}, {}, first_is_assumed, {}};
    std::vector<std::size_t> numbers;
    for (std::size_t i = 0; i < checkpoints.size(); ++i) {
      if (i > 0 && checkpoints[i].out - kept.checkpoints.back().out <= span) continue;
      kept.checkpoints.push_back(checkpoints[i]);
      numbers.push_back(i);
    }
    kept.window = [read = window, numbers = std::move(numbers)](
                      std::size_t i, std::span<std::byte, gzip_window_size> out) {
      return read(numbers.at(i), out);
    };
    return kept;
  }
};

/// The most that deflate can decode from `bytes` bytes of input: a length of 258 takes 2 bits.
/// @spec{RFC 1951 3.2.5; the bound is 1032 to 1}
[[nodiscard]] constexpr std::uint64_t most_decoded(std::uint64_t bytes) noexcept {
  constexpr auto max = std::numeric_limits<std::uint64_t>::max();
  return bytes >= max / 1032 - 1 ? max : 1032 * (bytes + 1) + 258;
}

namespace detail {

[[nodiscard]] inline std::string checkpoint_fault(Checkpoint const& p, Checkpoint const* previous) {
  auto const in = [&] { return "blob offset " + std::to_string(p.in); };
  auto const out = [&] { return "decoded offset " + std::to_string(p.out); };
  if (p.bits > 7) return "bits is " + std::to_string(p.bits) + ", at most 7 is possible";
  if (p.in < 2 || p.in > (std::uint64_t{1} << 60)) return in() + " is out of range";
  if (!std::in_range<std::int64_t>(p.out)) return out() + " is out of range";
  if (previous == nullptr) return p.out == 0 ? "" : out() + ", the first must be 0";
  if (p.bit_position() <= previous->bit_position()) {
    return in() + " does not come after the checkpoint before it";
  }
  if (p.out < previous->out) return out() + " goes back";
  if (p.out - previous->out > most_decoded(p.in - previous->in)) {
    return "claims " + std::to_string(p.out - previous->out) + " decoded bytes from " +
           std::to_string(p.in - previous->in) + " blob bytes, more than deflate can hold";
  }
  return "";
}

}  // namespace detail

/// Whether the checkpoints could come from a real blob: in range, in order, and no span that claims
/// to inflate beyond what deflate can.
/// @error{Errc::corrupt, one of them breaks a rule; the message names it}
[[nodiscard]] inline Result<void> check_checkpoints(std::span<Checkpoint const> checkpoints) {
  if (checkpoints.empty()) return fail(Errc::corrupt, "no checkpoints");
  for (std::size_t i = 0; i < checkpoints.size(); ++i) {
    auto const fault =
        detail::checkpoint_fault(checkpoints[i], i == 0 ? nullptr : &checkpoints[i - 1]);
    if (!fault.empty()) {
      return fail(Errc::corrupt, "checkpoint " + std::to_string(i) + ": " + fault);
    }
  }
  return {};
}

}  // namespace erofs_oci
