// SPDX-License-Identifier: Apache-2.0
/// @file
/// index_layers: an index for each layer of an image, from the store or built now.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/tarindex/build.hpp>

namespace erofs_oci {

/// One layer of an image.
struct ImageLayer {
  Descriptor descriptor;  ///< its digest and size are what the bytes must have
  AnySource blob;         ///< as it is stored

  /// Its number in the image, from 0, for messages. Empty: its place in the list.
  std::optional<std::size_t> number{};
};

/// How far the indexing of a layer has come.
struct LayerProgress {
  std::size_t layer = 0;    ///< its number in the image, from 0
  std::uint64_t done = 0;   ///< bytes of the blob
  std::uint64_t total = 0;  ///< bytes of the blob
};

/// How to index layers.
struct IndexOptions {
  IndexStore const* store = nullptr;          ///< where indexes are kept; borrowed. Null: nowhere
  std::uint64_t span_size = index_span_size;  ///< as tarindex::BuildOptions
  unsigned parallel = 4;  ///< layers that are read at the same time. Range: 1 or more

  /// What the layers may take, all of them together. Default: MemoryBudget's.
  std::shared_ptr<ImageMemory> memory = std::make_shared<ImageMemory>();
  std::optional<std::uint64_t> max_decoded{};  ///< of a layer; as tarindex::BuildOptions
  std::chrono::seconds max_time{6 * 3600};     ///< for all layers. Default: 6 hours

  /// The image whose claims count at the store, by its manifest's digest; see
  /// IndexStore::find_layer(). Empty: nobody's.
  std::optional<Digest> claims_of{};
  Refuted refuted = Refuted::skipped;  ///< as IndexStore::find_layer()

  /// Asked for a layer that the store does not have, before it is built: an index from elsewhere,
  /// say from the registry. Empty, or an empty answer: there is none.
  std::function<Result<std::optional<StoredLayer>>(ImageLayer const& layer)> elsewhere{};

  /// Told while a layer is built, on several threads. May be empty.
  std::function<void(LayerProgress const&)> progress{};

  /// Told of what an image cannot hold or a store did not take: not an error. May be empty.
  std::function<void(std::string const& text)> warn{};

  std::stop_token stop{};
};

/// "layer 3 (sha256:…)", for messages.
[[nodiscard]] std::string layer_name(std::size_t number, Descriptor const& descriptor);

/// What was built, as if it came from the store.
[[nodiscard]] Result<StoredLayer> opened_layer(tarindex::BuiltLayer built);

/// Whether a layer is an EROFS image: by its media type, or if that says nothing, by its bytes.
/// @error{as the blob says}
[[nodiscard]] Result<bool> is_erofs_layer(ImageLayer const& layer);

/// Gets an index for each layer, several at a time. The first error ends it; those under way end
/// early.
/// @error{Errc::digest_mismatch, a blob is not what its digest names}
/// @error{Errc::unsupported, a layer in zstd\, or one that no image can hold; the text names it}
/// @error{Errc::timed_out, not done after `options.max_time`}
/// @error{as build_layer(), as there; the text begins with the layer's number and digest}
[[nodiscard]] Result<std::vector<StoredLayer>> index_layers(std::vector<ImageLayer> const& layers,
                                                            IndexOptions options = {});

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/index_layers_body.hpp>
#endif
