// SPDX-License-Identifier: Apache-2.0
/// @file
/// What gzip/ztoc.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/detail/flat_buffer.hpp>
#include <erofs_oci/gzip/layer_index.hpp>
#include <erofs_oci/gzip/zinfo.hpp>
#include <erofs_oci/gzip/ztoc.hpp>
#include <erofs_oci/source/memory.hpp>

namespace erofs_oci {
namespace detail {

[[nodiscard]] inline ZtocFile ztoc_file(FlatTable const& table) {
  ZtocFile file;
  file.name = table.text(0);
  file.type = table.text(1);
  file.offset = static_cast<std::uint64_t>(table.number<std::int64_t>(2));
  file.size = static_cast<std::uint64_t>(table.number<std::int64_t>(3));
  file.link = table.text(4);
  file.mode = table.number<std::int64_t>(5);
  file.uid = table.number<std::uint32_t>(6);
  file.gid = table.number<std::uint32_t>(7);
  file.user = table.text(8);
  file.group = table.text(9);
  file.time = table.text(10);
  file.dev_major = table.number<std::int64_t>(11);
  file.dev_minor = table.number<std::int64_t>(12);
  auto const records = table.list(13);
  for (std::size_t i = 0; i < records.size(); ++i) {
    auto const record = records.table(i);
    file.records.push_back({std::string(record.text(0)), std::string(record.text(1))});
  }
  return file;
}

[[nodiscard]] inline Result<void> read_compression(FlatBuffer const& buffer, FlatTable const& table,
                                                   Ztoc& ztoc) {
  auto const algorithm = table.number<std::int8_t>(0, 1);
  auto const last = table.number<std::int32_t>(1);
  auto const digests = table.list(2);
  ztoc.checkpoints = to_bytes(table.bytes(3));
  if (auto const ok = buffer.status(); !ok) return ok;
  if (algorithm != 1 && algorithm != 2) {
    return fail(Errc::unsupported, "compression " + std::to_string(algorithm));
  }
  ztoc.encoding = algorithm == 1 ? BlobEncoding::gzip : BlobEncoding::plain;
  if (last < 0 || digests.size() != static_cast<std::size_t>(last) + 1) {
    return fail(Errc::corrupt, "last span is " + std::to_string(last) + ", digests are " +
                                   std::to_string(digests.size()));
  }
  for (std::size_t i = 0; i < digests.size(); ++i) {
    auto const text = digests.text(i);
    if (auto const ok = buffer.status(); !ok) return ok;
    EROFS_OCI_TRY_ASSIGN(auto const digest, Digest::parse(text), "span " + std::to_string(i));
    ztoc.span_digests.push_back(digest);
  }
  return {};
}

[[nodiscard]] inline Result<void> read_toc(FlatBuffer const& buffer, FlatTable const& table,
                                           std::size_t size, Ztoc& ztoc) {
  constexpr std::size_t least_file_size = 48;  // bytes of a table and its strings
  auto const files = table.list(0);
  if (files.size() > size / least_file_size) {
    return fail(Errc::corrupt,
                std::to_string(files.size()) + " files in " + std::to_string(size) + " bytes");
  }
  for (std::size_t i = 0; i < files.size(); ++i) {
    auto file = ztoc_file(files.table(i));
    EROFS_OCI_TRY(buffer.status(), "file " + std::to_string(i));
    if (!std::in_range<std::int64_t>(file.offset) || !std::in_range<std::int64_t>(file.size)) {
      return fail(Errc::corrupt, "file " + std::to_string(i) + ": negative offset or size");
    }
    ztoc.files.push_back(std::move(file));
  }
  return buffer.status();
}

}  // namespace detail

EROFS_OCI_BODY Result<Ztoc> parse_ztoc(std::span<std::byte const> bytes) {
  FlatBuffer buffer(bytes);
  auto const root = buffer.root();
  Ztoc ztoc;
  ztoc.version = root.text(0);
  ztoc.build_tool = root.text(1);
  ztoc.blob_size = static_cast<std::uint64_t>(root.number<std::int64_t>(2));
  ztoc.tar_size = static_cast<std::uint64_t>(root.number<std::int64_t>(3));
  auto const toc = root.table(4);
  auto const compression = root.table(5);
  EROFS_OCI_TRY(buffer.status(), "ztoc");
  if (ztoc.version != "0.9") {
    auto shown = ztoc.version.substr(0, 16);
    std::ranges::replace_if(shown, [](char c) { return c < ' ' || c > '~'; }, '?');
    return fail(Errc::unsupported, "ztoc: version \"" + shown + "\"");
  }
  if (!std::in_range<std::int64_t>(ztoc.blob_size) || !std::in_range<std::int64_t>(ztoc.tar_size)) {
    return fail(Errc::corrupt, "ztoc: negative size");
  }
  EROFS_OCI_TRY(detail::read_compression(buffer, compression, ztoc), "ztoc");
  EROFS_OCI_TRY(detail::read_toc(buffer, toc, bytes.size(), ztoc), "ztoc");
  return ztoc;
}

namespace detail {

struct PlainCheckpoints {
  std::uint64_t span_size = 0;
  std::uint64_t size = 0;
};

[[nodiscard]] inline Result<PlainCheckpoints> plain_checkpoints(std::span<std::byte const> raw) {
  constexpr std::size_t packed_size = 20;
  PlainCheckpoints out;
  if (raw.size() == packed_size) {
    out = {load_le<std::uint64_t>(raw.subspan<4, 8>()),
           load_le<std::uint64_t>(raw.subspan<12, 8>())};
  } else {
    FlatBuffer buffer(raw);
    auto const root = buffer.root();
    out = {static_cast<std::uint64_t>(root.number<std::int64_t>(1)),
           static_cast<std::uint64_t>(root.number<std::int64_t>(2))};
    EROFS_OCI_TRY(buffer.status(), "checkpoints");
  }
  if (out.span_size == 0 || !std::in_range<std::int64_t>(out.span_size) || out.size == 0) {
    return fail(Errc::corrupt, "checkpoints: spans of " + std::to_string(out.span_size) +
                                   " bytes in " + std::to_string(out.size));
  }
  return out;
}

[[nodiscard]] inline Result<void> set_plain_spans(Ztoc const& ztoc, ZtocSpans& spans) {
  EROFS_OCI_TRY_ASSIGN(auto const points, plain_checkpoints(ztoc.checkpoints));
  auto const count = (points.size - 1) / points.span_size + 1;
  if (points.size != ztoc.blob_size || ztoc.tar_size > ztoc.blob_size ||
      count != ztoc.span_digests.size()) {
    return fail(Errc::corrupt, std::to_string(points.size) + " bytes in spans of " +
                                   std::to_string(points.span_size) +
                                   ": sizes or number of digests differ");
  }
  spans.decoded_size = ztoc.blob_size;
  for (std::uint64_t begin = 0; auto const& digest : ztoc.span_digests) {
    auto const end = begin + std::min(points.span_size, points.size - begin);
    spans.chunks.push_back({begin, end, digest});
    begin = end;
  }
  return {};
}

[[nodiscard]] inline Result<void> set_gzip_spans(Ztoc&& ztoc, ZtocSpans& spans) {
  EROFS_OCI_TRY_ASSIGN(auto index, read_zinfo(AnySource(Memory(std::move(ztoc.checkpoints)))));
  if (index.first_is_assumed) return fail(Errc::unsupported, "zinfo version 1");
  auto const& points = index.checkpoints;
  if (points.size() != ztoc.span_digests.size()) {
    return fail(Errc::corrupt, std::to_string(points.size()) + " checkpoints, " +
                                   std::to_string(ztoc.span_digests.size()) + " digests");
  }
  for (std::size_t i = 0; i < points.size(); ++i) {
    auto const begin = points[i].first_byte();
    auto const end = i + 1 < points.size() ? points[i + 1].in : ztoc.blob_size;
    bool const rises =
        i == 0 || (spans.chunks.back().begin < begin && spans.chunks.back().end <= end);
    if (!rises || begin >= end || end > ztoc.blob_size) {
      return fail(Errc::corrupt, "span " + std::to_string(i) + " at " + std::to_string(begin) +
                                     " to " + std::to_string(end) + " of the blob");
    }
    spans.chunks.push_back({begin, end, ztoc.span_digests[i]});
  }
  auto const& last = points.back();
  // a checkpoint may lie in the padding
  spans.decoded_size = std::max(ztoc.tar_size, last.out);
  if (spans.decoded_size - last.out > most_decoded(ztoc.blob_size - last.in)) {
    return fail(Errc::corrupt, "a tar of " + std::to_string(ztoc.tar_size) +
                                   " bytes, more than the last span can hold");
  }
  spans.index = std::move(index);
  return {};
}

}  // namespace detail

EROFS_OCI_BODY Result<ZtocSpans> ztoc_spans(Ztoc ztoc, std::uint64_t blob_size) {
  if (ztoc.blob_size != blob_size) {
    return fail(Errc::mismatch, "ztoc: of a blob of " + std::to_string(ztoc.blob_size) +
                                    " bytes, the layer has " + std::to_string(blob_size));
  }
  ZtocSpans spans;
  spans.encoding = ztoc.encoding;
  spans.blob_size = blob_size;
  EROFS_OCI_TRY(ztoc.encoding == BlobEncoding::gzip ? detail::set_gzip_spans(std::move(ztoc), spans)
                                                    : detail::set_plain_spans(ztoc, spans),
                "ztoc");
  return spans;
}

}  // namespace erofs_oci
