// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/soci_layer.hpp only declares.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/window.hpp>
#include <erofs_oci/gzip/ztoc.hpp>
#include <erofs_oci/image/detail/layer_data.hpp>
#include <erofs_oci/image/soci_layer.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/tarindex/ztoc_layer.hpp>

namespace erofs_oci {
namespace detail {

// Windows of a zinfo are whole: nothing says what of them is used.
[[nodiscard]] inline Result<Bytes> whole_window(GzipIndex const& index, std::size_t i) {
  Bytes window(gzip_window_size);
  std::span<std::byte, gzip_window_size> const fixed(window);
  EROFS_OCI_TRY(index.window(i, fixed));
  return pack_window(fixed, WindowUse{}.set());
}

[[nodiscard]] inline Result<LayerIndex> index_of_ztoc(ZtocSpans const& spans,
                                                      Descriptor const& layer,
                                                      ImageMemory& memory) {
  EROFS_OCI_TRY(check_spans(spans.chunks, memory.budget().span()), "ztoc");
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
    LayerSpan span{{chunk.begin, chunk.begin, 0}, {}};
    if (gzip) {
      span.start = spans.index.checkpoints[i];
      EROFS_OCI_TRY_ASSIGN(span.packed_window, whole_window(spans.index, i));
    }
    EROFS_OCI_TRY(
        memory.take_windows(sizeof(LayerSpan) + sizeof(Digest) + span.packed_window.size()),
        "ztoc");
    index.spans.push_back(std::move(span));
    index.digests.push_back(chunk.digest);
  }
  if (index.spans.empty()) return fail(Errc::unsupported, "ztoc: no spans");
  return index;
}

}  // namespace detail

EROFS_OCI_BODY Result<tarindex::BuiltLayer> soci_layer(Ztoc ztoc, Descriptor const& layer,
                                                       std::shared_ptr<ImageMemory> const& memory) {
  EROFS_OCI_TRY_ASSIGN(auto tree, tarindex::ztoc_layer(ztoc, {.memory = memory}));
  EROFS_OCI_TRY_ASSIGN(auto const spans, ztoc_spans(std::move(ztoc), layer.size));
  EROFS_OCI_TRY_ASSIGN(auto index, detail::index_of_ztoc(spans, layer, *memory));

  tarindex::BuiltLayer built;
  built.index = std::move(index);
  built.layer = std::move(tree);
  EROFS_OCI_TRY(tarindex::write_tarindex(built));
  return built;
}

}  // namespace erofs_oci
