// SPDX-License-Identifier: Apache-2.0
/// @file
/// open_layers: a whole image as the bytes of one device.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/cached.hpp>
#include <erofs_oci/combinator/concat.hpp>
#include <erofs_oci/combinator/concat_list.hpp>
#include <erofs_oci/combinator/padded.hpp>
#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/combinator/verified.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/load.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/layers.hpp>
#include <erofs_oci/image/open.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/tarindex/merge.hpp>

namespace erofs_oci {

/// An image made of layers.
struct MergedImage {
  DeviceImage device;
  AnySource metadata;               ///< the EROFS image alone; shared with `device`
  std::uint64_t metadata_size = 0;  ///< bytes
};

namespace detail {

/// Names what a merged image is made from: the trees and where their data lie.
[[nodiscard]] inline std::string merge_key(std::vector<StoredLayer> const& layers) {
  constexpr std::string_view format = "merged image 1\n";
  Sha256 hash;
  hash.update(as_bytes(format));
  for (auto const& layer : layers) {
    auto const& index = layer.index.index;
    hash.update(as_bytes(tarindex::data_name(index) + " " + index.tarindex.hex() + " " +
                         index.links.hex() + " " + std::to_string(index.decoded_size) + "\n"));
  }
  return hash.finish().hex();
}

[[nodiscard]] inline Result<Bytes> merge_layers(
    std::vector<StoredLayer> const& layers,
    std::function<void(std::string const& text)> const& warn) {
  std::vector<tarindex::Layer> trees;
  std::vector<tarindex::MergeInput> inputs;
  trees.reserve(layers.size());
  for (auto const& layer : layers) {
    auto const reader = erofs::Reader<Ref<AnySource>>::open(Ref(layer.tarindex));
    if (!reader) return fail(reader.error(), "tarindex");
    auto tree = erofs::load_tree(*reader, erofs::Marks::trusted);
    if (!tree) return fail(tree.error(), "tarindex");
    trees.push_back({*std::move(tree), layer.dangling, {}});
    inputs.push_back({&trees.back(), tarindex::device_of(layer.index.index)});
  }
  auto merged = tarindex::merge(inputs);
  if (!merged) return fail(merged.error());
  if (warn) {
    for (auto const& report : merged->reports.list()) warn("merging layers: " + report.text);
  }
  auto const writer = erofs::Writer::make(merged->tree, merged->devices);
  if (!writer) return fail(writer.error());
  return writer->to_bytes();
}

/// The merged image, from the store or made now.
[[nodiscard]] inline Result<AnySource> merged_image(std::vector<StoredLayer> const& layers,
                                                    IndexOptions const& options) {
  auto const key = merge_key(layers);
  if (options.store != nullptr) {
    auto found = options.store->find_image(key);
    if (!found) return fail(found.error());
    if (*found) return **std::move(found);
  }
  auto image = merge_layers(layers, options.warn);
  if (!image) return fail(image.error());
  if (options.store != nullptr) {
    auto const kept = options.store->put_image(key, *image);
    if (!kept && options.warn) options.warn(kept.error().message());
  }
  return AnySource(Memory(*std::move(image)));
}

[[nodiscard]] inline std::vector<VerifiedChunk> chunks_of(LayerIndex const& index) {
  std::vector<VerifiedChunk> chunks;
  for (std::size_t i = 0; i < index.spans.size(); ++i) {
    auto const begin = index.spans[i].start.first_byte();
    if (begin < index.blob_end(i))
      chunks.push_back({begin, index.blob_end(i), index.spans[i].digest});
  }
  return chunks;
}

/// The decoded bytes of a layer, each span checked before it is decoded.
[[nodiscard]] inline Result<AnySource> open_layer_data(AnySource blob, OpenedIndex const& opened,
                                                       std::shared_ptr<GzranPool> const& pool,
                                                       ImageReadOptions const& options) {
  auto const& index = opened.index;
  if (blob.size() != index.blob_size) {
    return fail(Errc::mismatch, describe(blob) + ": " + std::to_string(blob.size()) +
                                    " bytes, its index is for " + std::to_string(index.blob_size));
  }
  auto checked = Verified<AnySource, Sha256>::make(std::move(blob), chunks_of(index));
  if (!checked) return fail(checked.error());
  if (index.encoding == BlobEncoding::plain) {
    CacheOptions cache;
    cache.capacity = options.cache_bytes / 4;
    cache.chunk = index.span_size;
    cache.wait = options.deadline;
    return AnySource(Cached<Verified<AnySource, Sha256>>(*std::move(checked), cache));
  }
  GzranOptions gzip;
  gzip.deadline = options.deadline;
  gzip.size = index.decoded_size;
  gzip.pool = pool;
  auto decoded =
      Gzran<Verified<AnySource, Sha256>>::make(*std::move(checked), opened.gzip(), std::move(gzip));
  if (!decoded) return fail(decoded.error());
  return AnySource(*std::move(decoded));
}

}  // namespace detail

/// The uncompressed tar of one layer, each span of the blob checked before it is decoded.
/// @param index  the layer's, as index_layers() gives it
/// @error{Errc::mismatch, the index is not for this layer}
[[nodiscard]] inline Result<AnySource> open_contents(ImageLayer layer, StoredLayer const& index,
                                                     ImageReadOptions const& options = {}) {
  auto const pool =
      std::make_shared<GzranPool>(options.cache_bytes, std::max(options.connections, 1U));
  return detail::open_layer_data(std::move(layer.blob), index.index, pool, options);
}

/// Puts the bytes of a device together that Linux mounts as the whole image: the merged metadata,
/// then the data of the layers that still show, from the bottom up. Whiteouts are applied and gone.
/// Nothing of a layer is read before it is needed, and every byte is checked against the digest of
/// its span.
/// @param layers   from the bottom up; owned from here on
/// @param indexes  theirs, as index_layers() gives them
/// @error{Errc::mismatch, an index is not for its layer}
/// @error{Errc::unsupported, the image takes 2 TiB or more}
[[nodiscard]] inline Result<MergedImage> open_layers(std::vector<ImageLayer> layers,
                                                     std::vector<StoredLayer> const& indexes,
                                                     ImageReadOptions const& options = {},
                                                     IndexOptions const& index_options = {}) {
  auto merged = detail::merged_image(indexes, index_options);
  if (!merged) return fail(merged.error(), "merging layers");
  Shared<AnySource> const metadata(*std::move(merged));
  auto const reader = erofs::Reader<Shared<AnySource>>::open(metadata);
  if (!reader) return fail(reader.error(), "merged image");

  auto const pool =
      std::make_shared<GzranPool>(options.cache_bytes, std::max(options.connections, 1U));
  auto const& frame = reader->frame();
  std::vector<bool> used(layers.size());
  std::vector<AnySource> parts;
  std::uint64_t next = metadata.size() / erofs::block_size;
  for (std::size_t slot = 0; slot < frame.slots().size(); ++slot) {
    auto const tag = std::string(as_text(frame.slots()[slot].tag));
    std::size_t number = 0;  // the next layer with these contents: one may be there twice
    while (number < indexes.size() &&
           (used[number] || tarindex::data_name(indexes[number].index.index) != tag)) {
      ++number;
    }
    if (number == indexes.size() || frame.slot_first(slot) != next) {
      return fail(Errc::mismatch, "merged image: device " + std::to_string(slot + 1));
    }
    used[number] = true;
    auto const& layer = layers[number];
    auto const name = layer_name(layer.number.value_or(number), layer.descriptor);
    auto data = detail::open_layer_data(std::move(layers[number].blob), indexes[number].index, pool,
                                        options);
    if (!data) return fail(data.error(), name);
    auto const blocks = frame.slot_blocks(slot);
    auto padded = Padded<AnySource>::to_size(*std::move(data), blocks * erofs::block_size);
    if (!padded) return fail(padded.error(), name);
    parts.push_back(AnySource(*std::move(padded)));
    next += blocks;
  }
  auto data = ConcatList<AnySource>::make(std::move(parts));
  if (!data) return fail(data.error());
  using Whole = Concat<Shared<AnySource>, ConcatList<AnySource>>;
  auto const size = metadata.size();
  auto whole = AnySource(Whole(metadata, *std::move(data)));
  auto const end = whole.size();
  auto cached = [pool] { return pool->used(); };
  return MergedImage{{std::move(whole), end, std::move(cached)}, AnySource(metadata), size};
}

}  // namespace erofs_oci
