// SPDX-License-Identifier: Apache-2.0
/// @file
/// A layer by its ztoc: what soci_layer() takes can be written as an index file, opened as an image
/// that is sound, and read to bytes or an error.
///
/// Input: two bytes with the length of the blob, the blob, the ztoc without windows. The target
/// corrects what no fuzzer can guess: the blob's size, the digests of the spans, the windows.
#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/fsck.hpp>
#include <erofs_oci/gzip/decoder.hpp>
#include <erofs_oci/gzip/zinfo.hpp>
#include <erofs_oci/gzip/ztoc.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/image/soci_layer.hpp>
#include <erofs_oci/source/memory.hpp>

#include "input.hpp"

using namespace erofs_oci;

namespace {

/// The first bytes that the blob decodes to.
Bytes decoded(std::span<std::byte const> blob) {
  GzipDecoder<ZlibInflater> decoder;
  Bytes out(1 << 18);
  auto const step = decoder.decode(blob, out);
  out.resize(step ? step->produced : 0);
  return out;
}

/// Puts the window behind each checkpoint that the decoded bytes give it.
Bytes with_windows(std::span<std::byte const> checkpoints, Bytes const& content) {
  auto const header = checkpoints.first(std::min(checkpoints.size(), zinfo_header_size));
  auto out = to_bytes(header);
  for (auto rest = checkpoints.subspan(header.size()); rest.size() >= 17; rest = rest.subspan(17)) {
    auto const point = decode_zinfo_record(rest.first<17>());
    out.insert(out.end(), rest.begin(), rest.begin() + 17);
    Bytes window(gzip_window_size);
    auto const end = static_cast<std::size_t>(std::min<std::uint64_t>(point.out, content.size()));
    auto const known = std::min(end, gzip_window_size);
    std::copy_n(content.begin() + static_cast<std::ptrdiff_t>(end - known), known,
                window.end() - static_cast<std::ptrdiff_t>(known));
    out.insert(out.end(), window.begin(), window.end());
  }
  return out;
}

void correct(Ztoc& ztoc, Bytes const& blob) {
  ztoc.blob_size = blob.size();
  if (ztoc.encoding == BlobEncoding::gzip && ztoc.checkpoints.size() < 17 * 500) {
    ztoc.checkpoints = with_windows(ztoc.checkpoints, decoded(blob));
  }
  auto const spans = ztoc_spans(ztoc, blob.size());
  if (!spans || spans->chunks.size() != ztoc.span_digests.size()) return;
  for (std::size_t i = 0; i < spans->chunks.size(); ++i) {
    auto const& chunk = spans->chunks[i];
    ztoc.span_digests[i] = digest_of(std::span(blob).subspan(
        static_cast<std::size_t>(chunk.begin), static_cast<std::size_t>(chunk.end - chunk.begin)));
  }
}

void read_all(AnySource const& device) {
  Bytes out(1 << 16);
  auto const end = std::min<std::uint64_t>(device.size(), 1 << 20);
  for (std::uint64_t at = 0; at < end; at += out.size()) {
    auto const n = device.read_at(at, out);
    fuzz::require(!n || *n == readable(device.size(), at, out.size()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  fuzz::Input input(data, size);
  auto const length = input.number<std::uint16_t>();
  auto const blob = to_bytes(input.bytes(length));
  auto ztoc = parse_ztoc(input.rest());
  if (!ztoc) return 0;
  correct(*ztoc, blob);
  Descriptor descriptor;
  descriptor.digest = digest_of(blob);
  descriptor.size = blob.size();
  auto built = soci_layer(*ztoc, descriptor);
  if (!built) return 0;

  std::vector<StoredLayer> indexes;
  auto opened = opened_layer(*std::move(built));
  fuzz::require(opened.has_value());
  indexes.push_back(*std::move(opened));
  std::vector<ImageLayer> layers;
  layers.push_back({std::move(descriptor), AnySource(Memory(blob))});
  auto const image = open_layers(std::move(layers), indexes, {.cache_bytes = 1 << 20});
  if (!image) return 0;
  auto const reader = erofs::Reader<Ref<AnySource>>::open(Ref(image->device.source));
  fuzz::require(reader.has_value());
  auto const findings = erofs::check(*reader);
  fuzz::require(findings.has_value() && findings->sound());
  read_all(image->device.source);
  return 0;
}
