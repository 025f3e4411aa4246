// SPDX-License-Identifier: Apache-2.0
/// @file
/// Ztoc: SOCI's index of a layer: where to enter its blob, digests of its spans, what is in its
/// tar.
///
/// A ztoc is a FlatBuffer without a file identifier. Fields by number:
/// ```
/// Ztoc             0 version string, "0.9"     1 build tool string   2 size of the blob i64
///                  3 size of the tar i64       4 TOC table           5 CompressionInfo table
/// TOC              0 vector of File
/// File             0 name     1 type      2 data's offset in the tar i64    3 size i64
///                  4 link     5 mode i64  6 uid u32   7 gid u32   8 user   9 group
///                  10 time, as RFC 3339   11 device major i64   12 minor i64   13 vector of Record
/// Record           0 key      1 value     a PAX record; value may hold any bytes
/// CompressionInfo  0 algorithm i8: 1 gzip (the default), 2 none   1 last span i32
///                  2 vector of strings: a digest a span           3 vector of bytes: checkpoints
/// ```
/// Checkpoints are a zinfo file for gzip. Without compression they are three integers: version i32,
/// span size i64, size i64; one after another in 20 bytes, or as fields 0 to 2 of another
/// FlatBuffer. SOCI may add a separator and JSON (files to prefetch) behind the FlatBuffer; we pass
/// it over.
/// @spec{SOCI snapshotter, ztoc 0.9}
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <erofs_oci/combinator/verified.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/detail/flat_buffer.hpp>
#include <erofs_oci/gzip/layer_index.hpp>

namespace erofs_oci {

/// A PAX record of a member.
struct ZtocRecord {
  std::string key;
  std::string value;  ///< any bytes

  friend bool operator==(ZtocRecord const&, ZtocRecord const&) = default;
};

/// A member of the tar, as Go's archive/tar understood it. Nothing is checked but that sizes are
/// not negative.
struct ZtocFile {
  std::string name;          ///< as in the archive
  std::string type;          ///< "reg", "dir", "symlink", "hardlink", "char", "block", "fifo"
  std::uint64_t offset = 0;  ///< of its data in the tar; where they would be, if it has none
  std::uint64_t size = 0;    ///< bytes, holes included; of others than files, whatever was there
  std::string link;
  std::int64_t mode = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::string user;
  std::string group;
  std::string time;  ///< RFC 3339, with a fraction
  std::int64_t dev_major = 0;
  std::int64_t dev_minor = 0;
  std::vector<ZtocRecord> records;

  friend bool operator==(ZtocFile const&, ZtocFile const&) = default;
};

/// The content of a ztoc. It is not trusted: see ztoc_spans().
struct Ztoc {
  std::string version;
  std::string build_tool;
  std::uint64_t blob_size = 0;  ///< bytes
  /// Bytes of the tar up to where Go's reader stopped: behind the end marker. The decoded stream
  /// may go on with padding.
  std::uint64_t tar_size = 0;
  BlobEncoding encoding = BlobEncoding::gzip;
  std::vector<Digest> span_digests;  ///< at least one
  Bytes checkpoints;
  std::vector<ZtocFile> files;  ///< in the order of the archive

  friend bool operator==(Ztoc const&, Ztoc const&) = default;
};

/// Reads a ztoc. Total: any bytes are one or an error, in time and memory in line with their
/// number.
/// @error{Errc::corrupt, it is none}
/// @error{Errc::unsupported, another version than 0.9\, or a compression other than gzip and none}
[[nodiscard]] Result<Ztoc> parse_ztoc(std::span<std::byte const> bytes);

/// How to enter a blob and what its spans must hash to.
struct ZtocSpans {
  BlobEncoding encoding = BlobEncoding::gzip;
  std::uint64_t blob_size = 0;  ///< bytes
  /// Bytes of the decoded stream that can be read: all that the members need. Good for
  /// GzranOptions::size. The stream itself may be longer, by padding behind the tar's end marker.
  std::uint64_t decoded_size = 0;
  GzipIndex index;                    ///< only for BlobEncoding::gzip
  std::vector<VerifiedChunk> chunks;  ///< of the blob, as Verified wants them
};

/// What a ztoc says of the blob, checked as far as that goes without the blob. The result is as
/// true as the ztoc is: spans that verify are those that its maker saw, and decode to whatever the
/// checkpoints' windows make of them. Only the decoded stream's digest (the diffID) proves the
/// content, and only a read of all of it can check that.
/// @param blob_size  as the manifest says
/// @error{Errc::mismatch, it describes a blob of another size}
/// @error{Errc::corrupt, its parts contradict each other}
/// @error{Errc::unsupported, its zinfo is of version 1}
[[nodiscard]] Result<ZtocSpans> ztoc_spans(Ztoc ztoc, std::uint64_t blob_size);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/gzip/detail/ztoc_body.hpp>
#endif
