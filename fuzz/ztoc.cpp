// SPDX-License-Identifier: Apache-2.0
/// @file
/// ztoc: any bytes are a ztoc or an error; what is accepted can be written and read back, and what
/// it says of spans and files fits the blob and the tar that it names.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <utility>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/ztoc.hpp>
#include <erofs_oci/source/zeros.hpp>
#include <erofs_oci/tarindex/ztoc_layer.hpp>
#include <erofs_oci/testing/ztoc_maker.hpp>

using namespace erofs_oci;

namespace {

void check_spans(Ztoc const& ztoc, ZtocSpans const& spans) {
  if (spans.chunks.size() != ztoc.span_digests.size()) std::abort();
  if (spans.chunks.back().end != ztoc.blob_size) std::abort();
  if (spans.decoded_size < ztoc.tar_size) std::abort();
  if (!Verified<Zeros, Sha256>::make(Zeros(ztoc.blob_size), spans.chunks)) std::abort();
}

void check_layer(Ztoc const& ztoc, tarindex::Layer const& layer) {
  for (erofs::NodeId id = 0; id < layer.tree.size(); ++id) {
    auto const* const file = layer.tree[id].regular();
    if (file == nullptr) continue;
    for (auto const& extent : file->extents) {
      if (extent.device_offset > ztoc.tar_size ||
          extent.length > ztoc.tar_size - extent.device_offset) {
        std::abort();
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto ztoc = parse_ztoc(std::as_bytes(std::span(data, size)));
  if (!ztoc) return 0;
  if (parse_ztoc(testing::encode_ztoc(*ztoc)) != *ztoc) std::abort();
  if (auto const layer = tarindex::ztoc_layer(*ztoc)) check_layer(*ztoc, *layer);
  // 32 KiB of window a checkpoint would drown the rest of the input
  if (ztoc->encoding == BlobEncoding::gzip && ztoc->checkpoints.size() < 2000) {
    Bytes checkpoints;
    auto rest = std::span(std::as_const(ztoc->checkpoints));
    auto const start = rest.first(std::min(rest.size(), zinfo_header_size));
    checkpoints.assign(start.begin(), start.end());
    for (rest = rest.subspan(start.size()); rest.size() >= 17; rest = rest.subspan(17)) {
      checkpoints.insert(checkpoints.end(), rest.begin(), rest.begin() + 17);
      checkpoints.resize(checkpoints.size() + gzip_window_size);
    }
    ztoc->checkpoints = std::move(checkpoints);
  }
  if (auto const spans = ztoc_spans(*ztoc, ztoc->blob_size)) check_spans(*ztoc, *spans);
  return 0;
}
