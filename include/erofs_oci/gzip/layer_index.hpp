// SPDX-License-Identifier: Apache-2.0
/// @file
/// LayerIndex: how to enter a layer's blob, span by span, and what its pieces must hash to.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <erofs_oci/combinator/verified.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>

namespace erofs_oci {

/// How a layer's blob holds its tar.
enum class BlobEncoding : std::uint32_t {
  plain = 0,  ///< as it is
  gzip = 1,
};

/// Bytes of a blob that have a digest of their own in an index that is built here.
inline constexpr std::uint64_t index_piece_size = 32 * 1024;

/// Wanted distance between the checkpoints of an index that is built here, see CheckpointChooser:
/// 1.125 MiB, with which an index takes 0.25 to 0.33 % of a Debian layer; 1 MiB: up to 0.42 %.
inline constexpr std::uint64_t index_span_size = 9 << 17;

/// One span of a layer.
struct LayerSpan {
  Checkpoint start;
  Bytes packed_window;  ///< as pack_window() makes it; empty in an index that was opened
};

/// What an index file says of a layer.
///
/// A span's bytes in the blob, from its first_byte() up to its blob_end(), are cut into pieces of
/// `piece_size` bytes, the last one shorter, and each piece has a digest. Where a checkpoint begins
/// within a byte, that byte is the last one of a piece and the first one of the next.
struct LayerIndex {
  BlobEncoding encoding = BlobEncoding::gzip;
  std::uint64_t blob_size = 0;      ///< bytes
  std::uint64_t decoded_size = 0;   ///< bytes
  std::uint64_t span_size = 0;      ///< bytes, as asked of the builder
  std::uint64_t piece_size = 0;     ///< bytes; 0: each span is one piece
  Digest blob;                      ///< SHA-256 of the blob
  Digest diff_id;                   ///< SHA-256 of the decoded stream; zero: not known
  Digest tarindex;                  ///< SHA-256 of the tarindex made with it
  std::uint64_t tarindex_size = 0;  ///< bytes
  Digest links;                     ///< SHA-256 of the file of links to other layers; zero: none
  std::vector<LayerSpan> spans;     ///< at least one
  std::vector<Digest> digests;      ///< SHA-256 of each piece of each span, in order

  /// Where span `i` ends in the blob.
  [[nodiscard]] std::uint64_t blob_end(std::size_t i) const noexcept {
    return i + 1 < spans.size() ? spans[i + 1].start.in : blob_size;
  }

  /// How many pieces span `i` has.
  [[nodiscard]] std::uint64_t pieces(std::size_t i) const noexcept {
    auto const begin = spans[i].start.first_byte();
    auto const end = blob_end(i);
    if (begin >= end) return 0;
    return piece_size == 0 ? 1 : (end - begin - 1) / piece_size + 1;
  }

  /// The pieces of all spans with their digests, as Verified wants them. As many digests as pieces
  /// must be there.
  [[nodiscard]] std::vector<VerifiedChunk> chunks() const {
    std::vector<VerifiedChunk> made;
    made.reserve(digests.size());
    for (std::size_t i = 0; i < spans.size(); ++i) {
      auto const end = blob_end(i);
      for (auto at = spans[i].start.first_byte(); at < end;) {
        auto const to = piece_size == 0 ? end : at + std::min(piece_size, end - at);
        made.push_back({at, to, digests[made.size()]});
        at = to;
      }
    }
    return made;
  }
};

}  // namespace erofs_oci
