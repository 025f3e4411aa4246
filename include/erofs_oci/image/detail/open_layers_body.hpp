// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/open_layers.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/concat.hpp>
#include <erofs_oci/combinator/concat_list.hpp>
#include <erofs_oci/combinator/padded.hpp>
#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/load.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/image/detail/layer_data.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/open.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/tarindex/merge.hpp>

namespace erofs_oci {
namespace detail {

/// Names what a merged image is made from: the trees and where their data lie.
[[nodiscard]] inline std::string merge_key(std::vector<StoredLayer> const& layers) {
  constexpr std::string_view format = "merged image 2\n";
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
    std::vector<StoredLayer> const& layers, MemoryBudget const& budget,
    std::function<void(std::string const& text)> const& warn) {
  tarindex::Merging merging;
  auto left = budget.trees();
  for (auto const& layer : layers) {
    EROFS_OCI_TRY_ASSIGN(auto const reader,
                         erofs::Reader<Ref<AnySource>>::open(Ref(layer.tarindex)), "tarindex");
    EROFS_OCI_TRY_ASSIGN(auto tree, erofs::load_tree(reader, erofs::Marks::trusted, left),
                         "tarindex");
    left -= tree.memory();
    auto device = tarindex::device_of(layer.index.index);
    // The kernel reads whole pages: no layer shares one with another or with the metadata, so that
    // each can be read whatever becomes of the others.
    constexpr auto page_blocks = erofs::page_size / erofs::block_size;
    device.blocks = (device.blocks + page_blocks - 1) / page_blocks * page_blocks;
    merging.add(tarindex::Layer{std::move(tree), layer.dangling, {}}, std::move(device));
  }
  EROFS_OCI_TRY_ASSIGN(auto merged, std::move(merging).finish());
  if (warn) {
    for (auto const& report : merged.reports.list()) warn("merging layers: " + report.text);
  }
  EROFS_OCI_TRY_ASSIGN(auto const writer, erofs::Writer::make(merged.tree, merged.devices,
                                                              {.alignment = erofs::page_size}));
  return writer.to_bytes();
}

/// The merged image, from the store or made now.
/// @param key  merge_key() of the layers
[[nodiscard]] inline Result<AnySource> merged_image(std::vector<StoredLayer> const& layers,
                                                    std::string const& key,
                                                    IndexOptions const& options) {
  if (options.store != nullptr) {
    EROFS_OCI_TRY_ASSIGN(auto found, options.store->find_image(key));
    if (found) return *std::move(found);
  }
  EROFS_OCI_TRY_ASSIGN(auto image, merge_layers(layers, options.memory->budget(), options.warn));
  if (options.store != nullptr) {
    auto const kept = options.store->put_image(key, image);
    if (!kept && options.warn) options.warn(kept.error().message());
    // From there, the kernel has its pages, and can give them up.
    auto found = kept ? options.store->find_image(key) : Result<std::optional<AnySource>>();
    if (found && *found) return **std::move(found);
  }
  return AnySource(Memory(std::move(image)));
}

}  // namespace detail

EROFS_OCI_BODY Result<AnySource> open_contents(ImageLayer layer, StoredLayer const& index,
                                               ImageReadOptions const& options) {
  EROFS_OCI_TRY_ASSIGN(auto data, detail::stored_data(std::move(layer.blob), index, {}));
  EROFS_OCI_TRY(detail::open_layer_data({&data, 1}, options));
  return std::move(data.blob);
}

EROFS_OCI_BODY Result<MergedImage> open_layers(std::vector<ImageLayer> layers,
                                               std::vector<StoredLayer> const& indexes,
                                               ImageReadOptions const& options,
                                               IndexOptions const& index_options) {
  auto key = detail::merge_key(indexes);
  EROFS_OCI_TRY_ASSIGN(auto merged, detail::merged_image(indexes, key, index_options),
                       "merging layers");
  Shared<AnySource> const metadata(std::move(merged));
  EROFS_OCI_TRY_ASSIGN(auto const reader, erofs::Reader<Shared<AnySource>>::open(metadata),
                       "merged image");

  auto const& frame = reader.frame();
  std::vector<bool> used(layers.size());
  std::vector<detail::LayerData> data;
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
    auto& layer = layers[number];
    auto name = layer_name(layer.number.value_or(number), layer.descriptor);
    EROFS_OCI_TRY_ASSIGN(auto one,
                         detail::stored_data(std::move(layer.blob), indexes[number], name), name);
    data.push_back(std::move(one));
    next += frame.slot_blocks(slot);
  }
  EROFS_OCI_TRY_ASSIGN(auto held, detail::open_layer_data(data, options));
  std::vector<AnySource> parts;
  for (std::size_t slot = 0; slot < data.size(); ++slot) {
    EROFS_OCI_TRY_ASSIGN(auto padded,
                         Padded<AnySource>::to_size(std::move(data[slot].blob),
                                                    frame.slot_blocks(slot) * erofs::block_size),
                         data[slot].name);
    parts.push_back(AnySource(std::move(padded)));
  }
  EROFS_OCI_TRY_ASSIGN(auto joined, ConcatList<AnySource>::make(std::move(parts)));
  using Whole = Concat<Shared<AnySource>, ConcatList<AnySource>>;
  auto const size = metadata.size();
  auto whole = AnySource(Whole(metadata, std::move(joined)));
  auto const end = whole.size();
  MergedImage image{
      {std::move(whole), end, std::move(held)}, AnySource(metadata), size, std::move(key)};
  for (auto& one : data) {
    if (one.start) image.device.starts.push_back(*std::move(one.start));
  }
  return image;
}

}  // namespace erofs_oci
