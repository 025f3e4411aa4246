// SPDX-License-Identifier: Apache-2.0
/// @file
/// The index file: how to enter a layer's blob, bound to that blob by digests.
///
/// All integers little endian.
/// ```
/// header, 256 bytes
///   [0, 8)      magic: 89 45 4f 49 0d 0a 1a 0a
///   [8, 12)     u32  version, 1
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
///   [160, 192)  SHA-256 of the table
///   [192, 224)  SHA-256 of the file of the layer's links to files of other layers; zeros: none
///   [224, 256)  SHA-256 of bytes [0, 224)
/// table, 64 bytes a span
///   [0, 8)      u64  in, as in Checkpoint; without gzip the same as out
///   [8, 16)     u64  out
///   [16, 20)    u32  bits
///   [20, 24)    u32  size of the packed window; 0: nothing of it is used
///   [24, 28)    u32  CRC-32 of the packed window
///   [28, 32)    zeros
///   [32, 64)    SHA-256 of the span's compressed bytes: from `in`, or `in` - 1 if `bits` is not 0,
///               up to the next span's `in` or the blob's end
/// packed windows, one after another, each raw deflate data of 32768 bytes, zeros where unused
/// ```
/// Every bit of the file is covered by a digest, a CRC, or its required value.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/inflater.hpp>
#include <erofs_oci/gzip/window.hpp>

namespace erofs_oci {

/// How a layer's blob holds its tar.
enum class BlobEncoding : std::uint32_t {
  plain = 0,  ///< as it is
  gzip = 1,
};

/// One span of a layer.
struct LayerSpan {
  Checkpoint start;
  Digest digest;        ///< SHA-256 of its compressed bytes
  Bytes packed_window;  ///< as pack_window() makes it; empty in an index that was opened
};

/// What an index file says of a layer.
struct LayerIndex {
  BlobEncoding encoding = BlobEncoding::gzip;
  std::uint64_t blob_size = 0;      ///< bytes
  std::uint64_t decoded_size = 0;   ///< bytes
  std::uint64_t span_size = 0;      ///< bytes, as asked of the builder
  Digest blob;                      ///< SHA-256 of the blob
  Digest diff_id;                   ///< SHA-256 of the decoded stream; zero: not known
  Digest tarindex;                  ///< SHA-256 of the tarindex made with it
  std::uint64_t tarindex_size = 0;  ///< bytes
  Digest links;                     ///< SHA-256 of the file of links to other layers; zero: none
  std::vector<LayerSpan> spans;     ///< at least one

  /// Where span `i` ends in the blob.
  [[nodiscard]] std::uint64_t blob_end(std::size_t i) const noexcept {
    return i + 1 < spans.size() ? spans[i + 1].start.in : blob_size;
  }
};

inline constexpr std::size_t index_header_size = 256;  ///< bytes
inline constexpr std::size_t index_record_size = 64;   ///< bytes

/// Most spans of an index file that are read; 64 TiB in spans of 4 MiB.
inline constexpr std::uint64_t index_most_spans = 1U << 24;

namespace detail {

inline constexpr std::array<std::byte, 8> index_magic{
    std::byte{0x89}, std::byte{'E'},  std::byte{'O'},  std::byte{'I'},
    std::byte{0x0d}, std::byte{0x0a}, std::byte{0x1a}, std::byte{0x0a}};
inline constexpr std::uint32_t index_version = 1;

template <Hash H>
[[nodiscard]] Digest hash_of(std::span<std::byte const> bytes) {
  H hash;
  hash.update(bytes);
  return hash.finish();
}

inline void put_digest(Digest const& digest, std::span<std::byte, 32> raw) noexcept {
  std::ranges::copy(digest.bytes().first(32), raw.begin());
}

[[nodiscard]] inline Digest get_digest(std::span<std::byte const, 32> raw) noexcept {
  return *Digest::make(DigestAlgorithm::sha256, raw);
}

[[nodiscard]] inline bool all_zero(std::span<std::byte const> bytes) noexcept {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

// Where each packed window lies.
struct WindowPlace {
  std::uint64_t offset = 0;
  std::uint32_t size = 0;
  std::uint32_t crc = 0;
};

struct IndexHeader {
  LayerIndex index;
  std::uint64_t file_size = 0;
  std::uint64_t spans = 0;
  Digest table;
};

template <Hash H>
[[nodiscard]] Result<IndexHeader> decode_index_header(
    std::span<std::byte const, index_header_size> raw) {
  if (!std::ranges::equal(raw.first<8>(), index_magic)) {
    return fail(Errc::corrupt, "offset 0: not an index file");
  }
  if (auto const version = load_le<std::uint32_t>(raw.subspan<8, 4>()); version != index_version) {
    return fail(Errc::unsupported, "offset 8: index file version " + std::to_string(version));
  }
  if (hash_of<H>(raw.first<224>()) != get_digest(raw.subspan<224, 32>())) {
    return fail(Errc::digest_mismatch, "offset 0: header");
  }
  auto const encoding = load_le<std::uint32_t>(raw.subspan<12, 4>());
  if (encoding > 1) {
    return fail(Errc::unsupported, "offset 12: blob encoding " + std::to_string(encoding));
  }
  IndexHeader header;
  auto& index = header.index;
  index.encoding = static_cast<BlobEncoding>(encoding);
  header.file_size = load_le<std::uint64_t>(raw.subspan<16, 8>());
  index.blob_size = load_le<std::uint64_t>(raw.subspan<24, 8>());
  index.decoded_size = load_le<std::uint64_t>(raw.subspan<32, 8>());
  index.span_size = load_le<std::uint64_t>(raw.subspan<40, 8>());
  index.blob = get_digest(raw.subspan<48, 32>());
  index.diff_id = get_digest(raw.subspan<80, 32>());
  index.tarindex = get_digest(raw.subspan<112, 32>());
  index.tarindex_size = load_le<std::uint64_t>(raw.subspan<144, 8>());
  header.spans = load_le<std::uint64_t>(raw.subspan<152, 8>());
  header.table = get_digest(raw.subspan<160, 32>());
  index.links = get_digest(raw.subspan<192, 32>());
  if (header.spans == 0 || header.spans > index_most_spans) {
    return fail(Errc::corrupt, "offset 152: " + std::to_string(header.spans) + " spans");
  }
  return header;
}

// Decodes the table and checks it against the header.
[[nodiscard]] inline Result<std::vector<WindowPlace>> decode_index_table(
    IndexHeader& header, std::span<std::byte const> table) {
  std::vector<WindowPlace> places;
  std::vector<Checkpoint> points;
  auto offset = index_header_size + std::uint64_t{table.size()};
  for (std::size_t i = 0; i < header.spans; ++i) {
    auto const raw = table.subspan(i * index_record_size).first<index_record_size>();
    auto const bits = load_le<std::uint32_t>(raw.subspan<16, 4>());
    auto const size = load_le<std::uint32_t>(raw.subspan<20, 4>());
    if (bits > 7 || size > 2 * gzip_window_size || !all_zero(raw.subspan<28, 4>())) {
      return fail(Errc::corrupt, "span " + std::to_string(i) + ": record out of range");
    }
    Checkpoint const point{load_le<std::uint64_t>(raw.first<8>()),
                           load_le<std::uint64_t>(raw.subspan<8, 8>()),
                           static_cast<std::uint8_t>(bits)};
    points.push_back(point);
    places.push_back({offset, size, load_le<std::uint32_t>(raw.subspan<24, 4>())});
    offset += size;
    header.index.spans.push_back({point, get_digest(raw.subspan<32, 32>()), {}});
  }
  if (offset != header.file_size) {
    return fail(Errc::corrupt, "offset 16: size " + std::to_string(header.file_size) +
                                   ", the windows end at " + std::to_string(offset));
  }
  if (header.index.encoding == BlobEncoding::gzip) {
    if (auto const ok = check_checkpoints(points); !ok) return fail(ok.error());
  } else if (header.index.blob_size != header.index.decoded_size) {
    return fail(Errc::corrupt, "offset 24: sizes of a plain blob differ");
  }
  auto const& last = points.back();
  bool rises = points.front().first_byte() <= header.index.blob_size;
  for (std::size_t i = 1; i < points.size(); ++i) rises = rises && points[i - 1].in < points[i].in;
  if (!rises || last.in > header.index.blob_size || last.out > header.index.decoded_size) {
    return fail(Errc::corrupt, "offset 24: spans leave the blob");
  }
  return places;
}

[[nodiscard]] inline std::array<std::byte, index_record_size> encode_index_record(
    LayerSpan const& span) noexcept {
  std::array<std::byte, index_record_size> record{};
  auto const raw = std::span(record);
  store_le(span.start.in, raw.first<8>());
  store_le(span.start.out, raw.subspan<8, 8>());
  store_le(std::uint32_t{span.start.bits}, raw.subspan<16, 4>());
  store_le(static_cast<std::uint32_t>(span.packed_window.size()), raw.subspan<20, 4>());
  store_le(ZlibInflater::crc32(0, span.packed_window), raw.subspan<24, 4>());
  put_digest(span.digest, raw.subspan<32, 32>());
  return record;
}

// All but the digest of the header itself.
[[nodiscard]] inline std::array<std::byte, index_header_size> encode_index_header(
    LayerIndex const& index, std::uint64_t file_size, Digest const& table) noexcept {
  std::array<std::byte, index_header_size> header{};
  auto const raw = std::span(header);
  std::ranges::copy(index_magic, raw.begin());
  store_le(index_version, raw.subspan<8, 4>());
  store_le(static_cast<std::uint32_t>(index.encoding), raw.subspan<12, 4>());
  store_le(file_size, raw.subspan<16, 8>());
  store_le(index.blob_size, raw.subspan<24, 8>());
  store_le(index.decoded_size, raw.subspan<32, 8>());
  store_le(index.span_size, raw.subspan<40, 8>());
  put_digest(index.blob, raw.subspan<48, 32>());
  put_digest(index.diff_id, raw.subspan<80, 32>());
  put_digest(index.tarindex, raw.subspan<112, 32>());
  store_le(index.tarindex_size, raw.subspan<144, 8>());
  store_le(std::uint64_t{index.spans.size()}, raw.subspan<152, 8>());
  put_digest(table, raw.subspan<160, 32>());
  put_digest(index.links, raw.subspan<192, 32>());
  return header;
}

}  // namespace detail

/// Writes an index file, in pieces, to `sink`; false from the sink ends it early. The same index
/// gives the same bytes.
template <Hash H>
[[nodiscard]] Result<void> write_index_file(LayerIndex const& index, ByteSink sink) {
  Bytes table;
  std::uint64_t file_size = index_header_size + index.spans.size() * index_record_size;
  for (auto const& span : index.spans) {
    auto const record = detail::encode_index_record(span);
    table.insert(table.end(), record.begin(), record.end());
    file_size += span.packed_window.size();
  }
  auto header = detail::encode_index_header(index, file_size, detail::hash_of<H>(table));
  std::span<std::byte, index_header_size> const raw(header);
  detail::put_digest(detail::hash_of<H>(raw.first<224>()), raw.subspan<224, 32>());
  if (!sink(header) || !sink(table)) return {};
  for (auto const& span : index.spans) {
    if (!span.packed_window.empty() && !sink(span.packed_window)) return {};
  }
  return {};
}

/// An index file that was opened: what it says, and how to enter its blob.
struct OpenedIndex {
  LayerIndex index;     ///< without windows
  WindowReader window;  ///< reads them, when needed, from the file
  /// As Gzran wants it. Only for BlobEncoding::gzip.
  [[nodiscard]] GzipIndex gzip() const {
    GzipIndex made;
    for (auto const& span : index.spans) made.checkpoints.push_back(span.start);
    made.window = window;
    return made;
  }
};

/// Reads an index file; the table is checked now, each window when it is read. `file` is owned from
/// here on.
/// @error{Errc::corrupt, it is no index file\, or breaks a rule of the format}
/// @error{Errc::digest_mismatch, its bytes are not those that were written}
/// @error{Errc::unsupported, a later version}
template <Hash H>
[[nodiscard]] Result<OpenedIndex> read_index_file(AnySource file) {
  auto const name = describe(file);
  std::array<std::byte, index_header_size> raw{};
  if (auto const ok = read_exact(file, 0, raw); !ok) return fail(ok.error(), name);
  auto header = detail::decode_index_header<H>(raw);
  if (!header) return fail(header.error(), name);
  auto const table_size = header->spans * index_record_size;
  if (file.size() != header->file_size || table_size > header->file_size - index_header_size) {
    return fail(Errc::truncated, name + ": the file has " + std::to_string(file.size()) +
                                     " bytes, its header says " +
                                     std::to_string(header->file_size));
  }
  Bytes table(static_cast<std::size_t>(table_size));
  if (auto const ok = read_exact(file, index_header_size, table); !ok)
    return fail(ok.error(), name);
  if (detail::hash_of<H>(table) != header->table) {
    return fail(Errc::digest_mismatch, name + ": offset 256: table");
  }
  auto places = detail::decode_index_table(*header, table);
  if (!places) return fail(places.error(), name);

  struct Windows {
    AnySource file;
    std::vector<detail::WindowPlace> places;
  };
  auto const shared = std::make_shared<Windows const>(Windows{std::move(file), *std::move(places)});
  auto window = [shared](std::size_t i,
                         std::span<std::byte, gzip_window_size> out) -> Result<void> {
    auto const& place = shared->places.at(i);
    auto const what = "window of span " + std::to_string(i);
    Bytes packed(place.size);
    if (auto const ok = read_exact(shared->file, place.offset, packed); !ok) {
      return fail(ok.error(), what);
    }
    if (ZlibInflater::crc32(0, packed) != place.crc) return fail(Errc::digest_mismatch, what);
    if (auto const ok = unpack_window(packed, out); !ok) return fail(ok.error(), what);
    return {};
  };
  return OpenedIndex{std::move(header->index), std::move(window)};
}

}  // namespace erofs_oci
