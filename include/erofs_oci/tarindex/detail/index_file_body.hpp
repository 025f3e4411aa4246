// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tarindex/index_file.hpp only declares.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/inflater.hpp>
#include <erofs_oci/gzip/layer_index.hpp>
#include <erofs_oci/gzip/window.hpp>
#include <erofs_oci/tarindex/index_file.hpp>

namespace erofs_oci {
namespace detail {

inline constexpr std::uint64_t index_magic = 0x0a1a0a0d'494f4589;

inline constexpr std::uint32_t index_version = 2;

inline void put_digest(Digest const& digest, std::span<std::byte, 32> raw) noexcept {
  std::ranges::copy(digest.bytes().first(32), raw.begin());
}

[[nodiscard]] inline Digest get_digest(std::span<std::byte const, 32> raw) noexcept {
  return *Digest::make(DigestAlgorithm::sha256, raw);
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
  std::uint64_t pieces = 0;
  Digest table;  // and of the digests

  [[nodiscard]] std::uint64_t table_size() const noexcept {
    return spans * index_record_size + pieces * 32;
  }
};

[[nodiscard]] inline Result<IndexHeader> decode_index_header(
    std::span<std::byte const, index_header_size> raw) {
  if (load_le<std::uint64_t>(raw.first<8>()) != index_magic) {
    return fail(Errc::corrupt, "offset 0: not an index file");
  }
  if (auto const version = load_le<std::uint32_t>(raw.subspan<8, 4>()); version != index_version) {
    return fail(Errc::unsupported, "offset 8: index file version " + std::to_string(version) +
                                       ", not " + std::to_string(index_version));
  }
  if (digest_of(raw.first<256>()) != get_digest(raw.subspan<256, 32>())) {
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
  index.piece_size = load_le<std::uint64_t>(raw.subspan<224, 8>());
  header.pieces = load_le<std::uint64_t>(raw.subspan<232, 8>());
  if (header.spans == 0 || header.spans > index_most_spans) {
    return fail(Errc::corrupt, "offset 152: " + std::to_string(header.spans) + " spans");
  }
  if (header.pieces > index_most_pieces) {
    return fail(Errc::corrupt, "offset 232: " + std::to_string(header.pieces) + " pieces");
  }
  if (std::ranges::any_of(raw.subspan<240, 16>(), [](auto b) { return b != std::byte{0}; })) {
    return fail(Errc::corrupt, "offset 240: not zeros");
  }
  return header;
}

// Decodes the table and checks it against the header.
[[nodiscard]] inline Result<std::vector<WindowPlace>> decode_index_table(
    IndexHeader& header, std::span<std::byte const> table) {
  std::vector<WindowPlace> places;
  std::vector<Checkpoint> points;
  auto offset = index_header_size + header.table_size();
  for (std::size_t i = 0; i < header.spans; ++i) {
    auto const raw = table.subspan(i * index_record_size).first<index_record_size>();
    auto const bits = load_le<std::uint32_t>(raw.subspan<16, 4>());
    auto const size = load_le<std::uint32_t>(raw.subspan<20, 4>());
    auto const zero = load_le<std::uint32_t>(raw.subspan<28, 4>());
    if (bits > 7 || size > 2 * gzip_window_size || zero != 0) {
      return fail(Errc::corrupt, "span " + std::to_string(i) + ": record out of range");
    }
    Checkpoint const point{load_le<std::uint64_t>(raw.first<8>()),
                           load_le<std::uint64_t>(raw.subspan<8, 8>()),
                           static_cast<std::uint8_t>(bits)};
    points.push_back(point);
    places.push_back({offset, size, load_le<std::uint32_t>(raw.subspan<24, 4>())});
    offset += size;
    header.index.spans.push_back({point, {}});
  }
  if (offset != header.file_size) {
    return fail(Errc::corrupt, "offset 16: size " + std::to_string(header.file_size) +
                                   ", the windows end at " + std::to_string(offset));
  }
  if (header.index.encoding == BlobEncoding::gzip) {
    EROFS_OCI_TRY(check_checkpoints(points));
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

[[nodiscard]] inline std::uint64_t count_pieces(LayerIndex const& index) noexcept {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < index.spans.size(); ++i) count += index.pieces(i);
  return count;
}

// Decodes the digests, once the spans are known.
[[nodiscard]] inline Result<void> decode_index_digests(IndexHeader& header,
                                                       std::span<std::byte const> digests) {
  if (auto const count = count_pieces(header.index); count != header.pieces) {
    return fail(Errc::corrupt, "offset 232: " + std::to_string(header.pieces) +
                                   " pieces, the spans have " + std::to_string(count));
  }
  header.index.digests.reserve(static_cast<std::size_t>(header.pieces));
  for (; !digests.empty(); digests = digests.subspan(32)) {
    header.index.digests.push_back(get_digest(digests.first<32>()));
  }
  return {};
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
  return record;
}

// All but the digest of the header itself.
[[nodiscard]] inline std::array<std::byte, index_header_size> encode_index_header(
    LayerIndex const& index, std::uint64_t file_size, Digest const& table) noexcept {
  std::array<std::byte, index_header_size> header{};
  auto const raw = std::span(header);
  store_le(index_magic, raw.first<8>());
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
  store_le(index.piece_size, raw.subspan<224, 8>());
  store_le(std::uint64_t{index.digests.size()}, raw.subspan<232, 8>());
  return header;
}

}  // namespace detail

EROFS_OCI_BODY Result<void> write_index_file(LayerIndex const& index, ByteSink sink) {
  if (detail::count_pieces(index) != index.digests.size()) {
    return fail(Errc::invalid_argument,
                "index file: " + std::to_string(index.digests.size()) + " digests for " +
                    std::to_string(detail::count_pieces(index)) + " pieces");
  }
  Bytes table;
  std::uint64_t file_size = index_header_size + index.spans.size() * index_record_size +
                            index.digests.size() * std::uint64_t{32};
  for (auto const& span : index.spans) {
    auto const record = detail::encode_index_record(span);
    table.insert(table.end(), record.begin(), record.end());
    file_size += span.packed_window.size();
  }
  for (auto const& digest : index.digests) {
    auto const raw = digest.bytes().first(32);
    table.insert(table.end(), raw.begin(), raw.end());
  }
  auto header = detail::encode_index_header(index, file_size, digest_of(table));
  std::span<std::byte, index_header_size> const raw(header);
  detail::put_digest(digest_of(raw.first<256>()), raw.subspan<256, 32>());
  if (!sink(header) || !sink(table)) return {};
  for (auto const& span : index.spans) {
    if (!span.packed_window.empty() && !sink(span.packed_window)) return {};
  }
  return {};
}

EROFS_OCI_BODY GzipIndex OpenedIndex::gzip() const {
  GzipIndex made;
  for (auto const& span : index.spans) made.checkpoints.push_back(span.start);
  made.window = window;
  return made;
}

EROFS_OCI_BODY Result<OpenedIndex> read_index_file(AnySource file) {
  auto const name = describe(file);
  std::array<std::byte, index_header_size> raw{};
  EROFS_OCI_TRY(read_exact(file, 0, raw), name);
  EROFS_OCI_TRY_ASSIGN(auto header, detail::decode_index_header(raw), name);
  auto const table_size = header.table_size();
  if (file.size() != header.file_size || table_size > header.file_size - index_header_size) {
    return fail(Errc::truncated, name + ": the file has " + std::to_string(file.size()) +
                                     " bytes, its header says " + std::to_string(header.file_size));
  }
  Bytes table(static_cast<std::size_t>(table_size));
  EROFS_OCI_TRY(read_exact(file, index_header_size, table), name);
  if (digest_of(table) != header.table) {
    return fail(Errc::digest_mismatch, name + ": offset 288: table");
  }
  EROFS_OCI_TRY_ASSIGN(auto places, detail::decode_index_table(header, table), name);
  EROFS_OCI_TRY(detail::decode_index_digests(
                    header, std::span(table).subspan(static_cast<std::size_t>(header.spans) *
                                                     index_record_size)),
                name);

  using Windows = std::pair<AnySource, std::vector<detail::WindowPlace>>;
  auto const shared = std::make_shared<Windows const>(std::move(file), std::move(places));
  auto window = [shared](std::size_t i,
                         std::span<std::byte, gzip_window_size> out) -> Result<void> {
    auto const& [source, windows] = *shared;
    auto const& place = windows.at(i);
    auto const what = "window of span " + std::to_string(i);
    Bytes packed(place.size);
    EROFS_OCI_TRY(read_exact(source, place.offset, packed), what);
    if (ZlibInflater::crc32(0, packed) != place.crc) return fail(Errc::digest_mismatch, what);
    EROFS_OCI_TRY(unpack_window(packed, out), what);
    return {};
  };
  return OpenedIndex{std::move(header.index), std::move(window)};
}

}  // namespace erofs_oci
