// SPDX-License-Identifier: Apache-2.0
/// @file
/// ExtraCheckpoints: places where a layer's blob can be entered, beside those of its index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <erofs_oci/combinator/verified.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>

namespace erofs_oci {

/// One of ExtraCheckpoints.
struct ExtraCheckpoint {
  Checkpoint start;
  Bytes packed_window;  ///< as pack_window() makes it
  /// SHA-256 of the blob from first_byte() on, up to the end of the piece in which that lies.
  /// Zero: not known, so the whole piece is read to check what is read by the checkpoint.
  Digest rest{};
};

/// Checkpoints where reads have begun far behind one of the index, so that the bytes between need
/// not be fetched again. They were found in bytes that the index's digests have proved; see
/// find_checkpoints(). On disk: doc/formats/checkpoints.md.
class ExtraCheckpoints {
 public:
  static constexpr std::size_t most = 1024;                     ///< of them
  static constexpr std::uint64_t most_window_bytes = 1U << 20;  ///< of all packed windows together

  /// By rising place in the blob.
  [[nodiscard]] std::span<ExtraCheckpoint const> points() const noexcept { return points_; }

  [[nodiscard]] bool empty() const noexcept { return points_.empty(); }

  /// Adds one, in its place. One that is there already, breaks a rule of check_checkpoints() beside
  /// its neighbours, or goes over a bound is left out.
  /// @return whether it was added
  bool add(ExtraCheckpoint point);

 private:
  std::vector<ExtraCheckpoint> points_;
  std::uint64_t window_bytes_ = 0;
};

/// An index with these checkpoints, too, of which each begins a span that is cut off the one it
/// lies in; bytes are checked in the pieces of the index as before. Yields the index as it was if
/// they do not fit it.
[[nodiscard]] GzipIndex add_checkpoints(GzipIndex index, ExtraCheckpoints const& extra);

/// The pieces of an index with the rest of each one in which a checkpoint lies, as Verified wants
/// them: what is read from the checkpoint on is checked without the bytes before it.
/// @param pieces  as LayerIndex::chunks() gives them
[[nodiscard]] std::vector<VerifiedChunk> add_rests(std::vector<VerifiedChunk> pieces,
                                                   ExtraCheckpoints const& extra);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/gzip/detail/extra_checkpoints_body.hpp>
#endif
