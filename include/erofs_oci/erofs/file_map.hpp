// SPDX-License-Identifier: Apache-2.0
/// @file
/// From a range of a file to runs of device bytes and holes.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/frame.hpp>
#include <erofs_oci/erofs/inode.hpp>

namespace erofs_oci::erofs {

/// A run of a file: contiguous on one device, or a hole.
struct Run {
  std::uint64_t file_offset = 0;  ///< bytes
  std::uint64_t length = 0;       ///< bytes, never 0
  std::optional<Place> place;     ///< empty for a hole, which reads as zeros
};

/// Takes the next run; false ends the visit early, an error ends it with that error.
using RunVisitor = FunctionRef<Result<bool>(Run const&)>;

namespace detail {

/// Joins runs that continue each other and hands out the rest.
class RunJoiner {
 public:
  explicit RunJoiner(RunVisitor visit) noexcept : visit_(visit) {}

  Result<bool> add(Run const& run) {
    if (pending_ && continues(*pending_, run)) {
      pending_->length += run.length;
      return true;
    }
    auto const go_on = flush();
    pending_ = run;
    return go_on;
  }

  Result<bool> flush() {
    if (!pending_) return true;
    auto const run = *pending_;
    pending_.reset();
    return visit_(run);
  }

 private:
  static bool continues(Run const& a, Run const& b) noexcept {
    if (a.place.has_value() != b.place.has_value()) return false;
    return !a.place ||
           (a.place->device == b.place->device && a.place->offset + a.length == b.place->offset);
  }

  RunVisitor visit_;
  std::optional<Run> pending_;
};

}  // namespace detail

/// Byte position of a chunk table and its count of entries.
struct ChunkTable {
  std::uint64_t position = 0;
  std::uint64_t count = 0;
  unsigned chunk_bits = 9;  ///< log2 of a chunk's bytes, at most 47
};

/// Checks an inode's chunk table against the image.
/// @pre layout chunks and size > 0
/// @error{Errc::unsupported, reserved bits in the chunk format}
/// @error{Errc::corrupt, the table leaves the image}
template <RandomAccessSource S>
[[nodiscard]] Result<ChunkTable> chunk_table(Frame<S> const& frame, Inode const& inode) {
  auto const format = inode.chunk_format();
  if (format.reserved_bits()) {
    return fail(Errc::unsupported, "chunk format " + std::to_string(format.raw));
  }
  auto const chunk_bits = frame.superblock().block_bits + format.bits();
  auto const count = ((inode.size() - 1) >> chunk_bits) + 1;
  auto const position = align_up<std::uint64_t>(inode.tail_position(), format.entry_size());
  auto const length = checked_mul<std::uint64_t>(count, format.entry_size());
  if (!position || !length || !frame.contains(*position, *length)) {
    return fail(Errc::corrupt, "a table of " + std::to_string(count) + " chunks leaves the image");
  }
  return ChunkTable{*position, count, chunk_bits};
}

namespace detail {

template <RandomAccessSource S>
[[nodiscard]] Result<bool> chunk_runs(Frame<S> const& frame, Inode const& inode,
                                      std::uint64_t begin, std::uint64_t end, RunJoiner& runs) {
  EROFS_OCI_TRY_ASSIGN(auto const table, chunk_table(frame, inode));
  auto const format = inode.chunk_format();
  auto const entry = format.entry_size();
  std::array<std::byte, 4096> buffer{};
  auto const last = (end - 1) >> table.chunk_bits;
  for (auto j = begin >> table.chunk_bits; j <= last;) {
    auto const n = std::min<std::uint64_t>(last - j + 1, buffer.size() / entry);
    auto const part = std::span(buffer).first(static_cast<std::size_t>(n) * entry);
    EROFS_OCI_TRY(frame.read(table.position + j * entry, part));
    for (std::size_t i = 0; i < n; ++i, ++j) {
      auto const chunk = ChunkIndex::decode(part.subspan(i * entry, entry), format);
      auto const start = j << table.chunk_bits;
      auto const low = std::max(begin, start);
      auto const high = std::min(end, start + (std::uint64_t{1} << table.chunk_bits));
      Run run{low, high - low, std::nullopt};
      if (!chunk.hole) {
        EROFS_OCI_TRY_ASSIGN(run.place,
                             frame.place(chunk.device, chunk.address, low - start, run.length),
                             "chunk " + std::to_string(j));
      }
      auto const go_on = runs.add(run);
      if (!go_on || !*go_on) return go_on;
    }
  }
  return true;
}

template <RandomAccessSource S>
[[nodiscard]] Result<bool> flat_runs(Frame<S> const& frame, Inode const& inode, std::uint64_t begin,
                                     std::uint64_t end, RunJoiner& runs) {
  if (inode.layout() == DataLayout::plain && inode.is_hole()) {
    return runs.add({begin, end - begin, std::nullopt});
  }
  auto const in_blocks = inode.size() - inode.tail_size(frame.block());
  if (begin < in_blocks) {
    auto const length = std::min(end, in_blocks) - begin;
    EROFS_OCI_TRY_ASSIGN(auto const place, frame.place(0, inode.first_block(), begin, length));
    auto const go_on = runs.add({begin, length, place});
    if (!go_on || !*go_on) return go_on;
  }
  if (end > in_blocks) {
    auto const low = std::max(begin, in_blocks);
    // Reader::inode() checked that the tail lies in the image.
    return runs.add({low, end - low, Place{0, inode.tail_position() + (low - in_blocks)}});
  }
  return true;
}

}  // namespace detail

/// Visits the runs of [begin, end) of a regular file in order, joined where they continue each
/// other.
/// @pre begin <= end <= inode.size()
/// @error{Errc::unsupported, a compressed file\, or an unknown chunk format}
/// @error{Errc::corrupt, an address that leaves its device\, an unknown device\, a table that
/// leaves the image}
template <RandomAccessSource S>
[[nodiscard]] Result<void> for_each_run(Frame<S> const& frame, Inode const& inode,
                                        std::uint64_t begin, std::uint64_t end, RunVisitor visit) {
  if (begin == end) return {};
  detail::RunJoiner joiner(visit);
  auto const done = [&]() -> Result<bool> {
    switch (inode.layout()) {
      case DataLayout::plain:
      case DataLayout::tail: return detail::flat_runs(frame, inode, begin, end, joiner);
      case DataLayout::chunks: return detail::chunk_runs(frame, inode, begin, end, joiner);
      case DataLayout::compressed:
      case DataLayout::compressed_full: break;
    }
    return fail(Errc::unsupported, "compressed data");
  }();
  if (!done) return tl::unexpected(done.error());
  if (!*done) return {};
  EROFS_OCI_TRY(joiner.flush());
  return {};
}

}  // namespace erofs_oci::erofs
