// SPDX-License-Identifier: Apache-2.0
/// @file
/// soci_layer: a layer's indexes from a ztoc, without reading the layer.
#pragma once

#include <algorithm>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/index_file.hpp>
#include <erofs_oci/gzip/window.hpp>
#include <erofs_oci/gzip/ztoc.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/tarindex/ztoc_layer.hpp>

namespace erofs_oci {

namespace detail {

// Windows of a zinfo are whole: nothing says what of them is used.
[[nodiscard]] inline Result<Bytes> whole_window(GzipIndex const& index, std::size_t i) {
  Bytes window(gzip_window_size);
  std::span<std::byte, gzip_window_size> const fixed(window);
  if (auto const ok = index.window(i, fixed); !ok) return fail(ok.error());
  return pack_window(fixed, WindowUse{}.set());
}

[[nodiscard]] inline Result<LayerIndex> index_of_ztoc(ZtocSpans const& spans,
                                                      Descriptor const& layer) {
  LayerIndex index;
  index.encoding = spans.encoding;
  index.blob_size = spans.blob_size;
  index.decoded_size = spans.decoded_size;
  if (layer.digest.algorithm() == DigestAlgorithm::sha256) index.blob = layer.digest;
  bool const gzip = spans.encoding == BlobEncoding::gzip;
  if (gzip && spans.index.checkpoints.size() != spans.chunks.size()) {
    return fail(Errc::unsupported, "ztoc: a span without a digest");
  }
  index.span_size = gzip ? 0 : spans.chunks.empty() ? 0 : spans.chunks.front().end;
  for (std::size_t i = 0; i < spans.chunks.size(); ++i) {
    auto const& chunk = spans.chunks[i];
    LayerSpan span{{chunk.begin, chunk.begin, 0}, chunk.digest, {}};
    if (gzip) {
      span.start = spans.index.checkpoints[i];
      auto window = whole_window(spans.index, i);
      if (!window) return fail(window.error());
      span.packed_window = *std::move(window);
    }
    index.spans.push_back(std::move(span));
  }
  if (index.spans.empty()) return fail(Errc::unsupported, "ztoc: no spans");
  return index;
}

}  // namespace detail

/// Makes the indexes of a layer from its ztoc. The tree is what the ztoc says of the tar; whether
/// that is true, only reading the layer would tell, so take a ztoc only from whom you would take
/// the image. The diffID stays unknown (zero). Bytes are still checked, against the ztoc's digests.
/// @param layer  the layer that the ztoc is said to be of
/// @error{Errc::unsupported, the ztoc cannot tell all that is needed: build the indexes instead}
/// @error{Errc::corrupt\, Errc::mismatch, it contradicts itself or the layer}
[[nodiscard]] inline Result<tarindex::BuiltLayer> soci_layer(Ztoc const& ztoc,
                                                             Descriptor const& layer) {
  auto const spans = ztoc_spans(ztoc, layer.size);
  if (!spans) return fail(spans.error());
  auto tree = tarindex::ztoc_layer(ztoc);
  if (!tree) return fail(tree.error());
  auto index = detail::index_of_ztoc(*spans, layer);
  if (!index) return fail(index.error());

  tarindex::BuiltLayer built;
  built.index = *std::move(index);
  built.layer = *std::move(tree);
  if (auto const ok = tarindex::write_tarindex<Sha256>(built); !ok) return fail(ok.error());
  return built;
}

}  // namespace erofs_oci
