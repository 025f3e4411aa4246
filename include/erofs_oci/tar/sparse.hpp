// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sparse members: the old GNU map in header blocks, and the PAX forms 0.0, 0.1 and 1.0. No I/O.
///
/// All of them say the same: the file has `size` bytes, and the member's data are the segments one
/// after another; the rest are holes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

/// The `GNU.sparse.*` records of one extended header.
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

/// The old GNU map, fed with the header and then with each extension block.
/// @spec{GNU tar manual, Basic Tar Format: struct oldgnu_header, struct sparse_header}
class OldSparseMap {
 public:
  /// Takes the four segments and the real size of a header; yields whether an extension follows.
  /// @error{Errc::corrupt, a number is none}
  [[nodiscard]] Result<bool> take_header(Block header);

  /// Takes the 21 segments of an extension block; yields whether another one follows.
  /// @error{Errc::corrupt, a number is none}
  /// @error{Errc::unsupported, there are more than `max_segments`}
  [[nodiscard]] Result<bool> take_extension(Block block) {
    return take(block.first<504>(), block[504]);
  }

  [[nodiscard]] std::uint64_t real_size() const noexcept { return real_size_; }
  [[nodiscard]] std::vector<Segment> const& segments() const noexcept { return segments_; }

 private:
  [[nodiscard]] Result<bool> take(std::span<std::byte const> slots, std::byte more);

  std::uint64_t real_size_ = 0;
  std::vector<Segment> segments_;
};

/// The map in front of the data of a PAX 1.0 member, fed block by block: decimal numbers, one a
/// line: how many segments, then offset and length of each; padded to a block.
class DataSparseMap {
 public:
  /// Takes the next block; yields whether the map continues in another one.
  /// @error{Errc::corrupt, a line is no number}
  /// @error{Errc::unsupported, there are more than `max_segments`}
  [[nodiscard]] Result<bool> take(Block block);

  [[nodiscard]] std::vector<Segment> const& segments() const noexcept { return segments_; }

 private:
  [[nodiscard]] bool complete() const noexcept {
    return count_ && segments_.size() == *count_ && !offset_;
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
[[nodiscard]] Result<std::vector<Extent>> place_segments(std::vector<Segment> const& segments,
                                                         std::uint64_t real_size,
                                                         std::uint64_t tar_offset,
                                                         std::uint64_t packed);

/// Most bytes of one file that are copied. Programs that write archives find holes in whole blocks
/// and copy only where a file ends in a hole.
inline constexpr std::uint64_t max_copied = 16 * 1024 * 1024;

/// Copies the parts of a sparse file that an image of fixed chunks cannot refer to, while the
/// member's data pass: chunks of which only a part is data, or whose data lie elsewhere in blocks
/// of 512 bytes than in the file.
///
/// It takes the size of chunks, from 512 bytes up, for which the copies and a table of eight bytes
/// a chunk are smallest together: one byte in the middle of a terabyte costs a few MiB.
class SparseCopier {
 public:
  /// Copies nothing.
  SparseCopier() = default;

  /// @param extents  as place_segments() makes them
  /// @param size     of the file, below 2^63
  /// @error{Errc::unsupported, more than `max_copied` bytes would have to be copied}
  [[nodiscard]] static Result<SparseCopier> make(std::span<Extent const> extents,
                                                 std::uint64_t size);

  /// Where in the archive the next byte is that take() must see; the largest number if there is
  /// none.
  [[nodiscard]] std::uint64_t next() const noexcept {
    return at_ < pieces_.size() ? pieces_[at_].tar_offset
                                : std::numeric_limits<std::uint64_t>::max();
  }

  /// Takes bytes of the archive, in its order.
  /// @param offset  of the first one; at most next()
  void take(std::uint64_t offset, std::span<std::byte const> bytes);

  /// The copies, once all bytes were taken.
  [[nodiscard]] std::vector<Copy> finish() && noexcept { return std::move(copies_); }

 private:
  /// A run of the archive, and where in which copy it goes.
  struct Piece {
    std::uint64_t tar_offset;
    std::uint64_t length;
    std::size_t copy;
    std::uint64_t offset;
  };

  std::vector<Copy> copies_;
  std::vector<Piece> pieces_;
  std::size_t at_ = 0;  // the first piece that is not complete
};

}  // namespace erofs_oci::tar

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tar/detail/sparse_body.hpp>
#endif
