// SPDX-License-Identifier: Apache-2.0
/// @file
/// The index file, version 2: checkpoints and digests of a layer's blob.
///
/// All integers little endian.
/// ```
/// header, 288 bytes
///   [0, 8)      magic: 89 45 4f 49 0d 0a 1a 0a
///   [8, 12)     u32  version, 2
///   [12, 16)    u32  encoding of the blob: 0 as it is, 1 gzip
///   [16, 24)    u64  size of this file
///   [24, 32)    u64  size of the blob
///   [32, 40)    u64  size of the decoded stream
///   [40, 48)    u64  span size that the builder was asked for
///   [48, 80)    SHA-256 of the blob
///   [80, 112)   SHA-256 of the decoded stream (the diffID); zeros: not known
///   [112, 144)  SHA-256 of the tarindex made with it
///   [144, 152)  u64  size of that tarindex
///   [152, 160)  u64  number of spans, n, at least 1
///   [160, 192)  SHA-256 of the table and the digests behind it
///   [192, 224)  SHA-256 of the file of the layer's links to files of other layers; zeros: none
///   [224, 232)  u64  size of a piece; 0: each span is one piece
///   [232, 240)  u64  number of pieces, p
///   [240, 256)  zeros
///   [256, 288)  SHA-256 of bytes [0, 256)
/// table, 32 bytes a span
///   [0, 8)      u64  in, as in Checkpoint; without gzip the same as out
///   [8, 16)     u64  out
///   [16, 20)    u32  bits
///   [20, 24)    u32  size of the packed window; 0: nothing of it is used
///   [24, 28)    u32  CRC-32 of the packed window
///   [28, 32)    zeros
/// digests, 32 bytes a piece: SHA-256 of the piece's compressed bytes
/// packed windows, one after another, each raw deflate data of 32768 bytes, zeros where unused
/// ```
/// A span's bytes begin at `in`, or at `in` - 1 if `bits` is not 0, and end at the next span's `in`
/// or at the blob's end. Its pieces are counted from its first byte; its last one may be shorter; a
/// span of no bytes has none. Every bit of the file is covered by a digest, a CRC, or its required
/// value.
///
/// Version 1 had one digest a span. Its files are refused, to be made again.
#pragma once

#include <cstddef>
#include <cstdint>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/layer_index.hpp>

namespace erofs_oci {

inline constexpr std::size_t index_header_size = 288;  ///< bytes
inline constexpr std::size_t index_record_size = 32;   ///< bytes

/// Most spans of an index file that are read; 16 TiB in spans of 1 MiB.
inline constexpr std::uint64_t index_most_spans = 1U << 24;

/// Most pieces of an index file that are read; 8 TiB in pieces of 32 KiB.
inline constexpr std::uint64_t index_most_pieces = 1U << 28;

/// Writes an index file, in pieces, to `sink`; false from the sink ends it early. The same index
/// gives the same bytes.
/// @error{Errc::invalid_argument, there are not as many digests as pieces}
[[nodiscard]] Result<void> write_index_file(LayerIndex const& index, ByteSink sink);

/// An opened index file.
struct OpenedIndex {
  LayerIndex index;     ///< without windows
  WindowReader window;  ///< reads them, when needed, from the file
  /// As Gzran wants it. Only for BlobEncoding::gzip.
  [[nodiscard]] GzipIndex gzip() const;
};

/// Reads an index file; the table is checked now, each window when it is read. `file` is owned from
/// here on.
/// @error{Errc::corrupt, it is no index file\, or breaks a rule of the format}
/// @error{Errc::digest_mismatch, its bytes are not those that were written}
/// @error{Errc::unsupported, another version}
[[nodiscard]] Result<OpenedIndex> read_index_file(AnySource file);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tarindex/detail/index_file_body.hpp>
#endif
