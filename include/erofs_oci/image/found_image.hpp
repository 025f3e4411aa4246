// SPDX-License-Identifier: Apache-2.0
/// @file
/// FoundImage: the layers that a name and a choice mean, in a registry, an OCI layout or a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/combinator/retry.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/gzip/ztoc.hpp>
#include <erofs_oci/image/image_name.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/image/index_use.hpp>
#include <erofs_oci/image/remote_index.hpp>
#include <erofs_oci/image/soci_layer.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/oci/image.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/oci/registry.hpp>
#include <erofs_oci/oci/soci.hpp>
#include <erofs_oci/source/http_transport.hpp>
#include <erofs_oci/tarindex/build.hpp>

namespace erofs_oci {

/// One layer that was found.
struct FoundLayer {
  std::size_t number = 0;  ///< in the image, from 0
  Descriptor descriptor;   ///< without a digest for a plain file
  Shared<AnySource> blob;

  /// As the library wants it; shares the blob.
  [[nodiscard]] ImageLayer layer() const { return {descriptor, AnySource(blob), number}; }
};

/// A layer's indexes from the registry's SOCI index.
struct SociLayer {
  tarindex::BuiltLayer built;
  bool bound = false;  ///< the image names the index by its digest
};

/// Looks a layer up there; empty if it has none. What it takes is counted in `memory`.
using SociLookup = std::function<Result<std::optional<SociLayer>>(
    Descriptor const& layer, std::shared_ptr<ImageMemory> const& memory)>;

/// An image, or some layers of one, that was found.
struct FoundImage {
  std::string name;                     ///< as the user gave it; set by the caller
  std::optional<Digest> digest;         ///< of the manifest; none for a plain file
  Descriptor manifest_at;               ///< points to the manifest; empty for a plain file
  std::optional<Platform> platform;     ///< if an index says so
  std::optional<Descriptor> config_at;  ///< of the image's configuration
  std::optional<Shared<AnySource>> config;
  std::size_t layer_count = 1;     ///< of the whole image
  IndexLookup index;               ///< empty: no index artifact would be taken
  TreeLookup tree;                 ///< empty: no Merkle tree would be taken
  SociLookup soci;                 ///< empty: no SOCI index can be had
  std::vector<FoundLayer> layers;  ///< those that were asked for, from the bottom up

  /// As the library wants them; they share the blobs.
  [[nodiscard]] std::vector<ImageLayer> image_layers() const;
};

/// Which layers of an image are wanted: one, the lowest ones, or all if nothing is set.
struct LayerChoice {
  std::optional<Digest> digest{};         ///< counts more than `number`
  std::optional<std::uint32_t> number{};  ///< from 0; counts more than `first`
  std::optional<std::uint32_t> first{};   ///< so many, from the bottom up. Range: 1 or more
};

/// The numbers of the layers that are wanted.
/// @error{Errc::not_found, no layer has that digest}
/// @error{Errc::invalid_argument, there is no layer of that number\, or there are not so many}
[[nodiscard]] Result<std::vector<std::size_t>> choose_layers(std::vector<Descriptor> const& layers,
                                                             LayerChoice const& choice);

namespace detail {

/// What was resolved, with the chosen layers' blobs.
/// @param open  `(Descriptor const&) -> Result<AnySource>`
template <class Open>
[[nodiscard]] Result<FoundImage> found_image(Image const& image, LayerChoice const& choice,
                                             Open const& open) {
  FoundImage found;
  found.digest = image.digest;
  found.manifest_at.media_type = image.manifest.media_type;
  found.manifest_at.digest = image.digest;
  found.manifest_at.size = image.size;
  found.platform = image.platform;
  found.config_at = image.manifest.config;
  found.layer_count = image.manifest.layers.size();
  EROFS_OCI_TRY_ASSIGN(auto const numbers, choose_layers(image.manifest.layers, choice));
  for (auto const number : numbers) {
    auto const& descriptor = image.manifest.layers[number];
    EROFS_OCI_TRY_ASSIGN(auto blob, open(descriptor));
    found.layers.push_back({number, descriptor, Shared<AnySource>(std::move(blob))});
  }
  // A missing configuration is an error only when it is read.
  if (auto config = open(image.manifest.config)) found.config.emplace(*std::move(config));
  return found;
}

/// Looks for the image's SOCI index when a layer is first asked for, once.
template <HttpTransport Transport, Clock Time>
struct SociLookups {
  BasicRegistry<Transport, Time> registry;
  Image image;
  bool referrers;  // whether an index that is not bound is taken, too
  std::once_flag once{};
  Result<std::optional<SociIndex>> index{};
  std::mutex large{};

  Result<std::optional<SociLayer>> operator()(Descriptor const& layer,
                                              std::shared_ptr<ImageMemory> const& memory) {
    std::call_once(once, [this] {
      // One that only refers to the image would not be taken: nobody is asked for it.
      if (referrers || image.manifest.annotations.contains(soci_annotation::index_digest)) {
        index = find_soci_index(registry, image);
      }
    });
    if (!index) return fail(index.error());
    if (!*index) return std::optional<SociLayer>();
    bool const bound = (*index)->binding == SociBinding::by_digest;
    auto const* const ztoc = bound || referrers ? (*index)->ztoc_of(layer.digest) : nullptr;
    if (ztoc == nullptr) return std::optional<SociLayer>();
    auto const most = memory->budget().ztoc();
    std::unique_lock one_large(large, std::defer_lock);
    if (ztoc->size > most / 8) one_large.lock();
    auto parsed = fetch_ztoc(registry, *ztoc, most).and_then([](Bytes const& bytes) {
      return parse_ztoc(bytes);
    });
    if (!parsed) return fail(std::move(parsed).error());
    memory->came(ztoc->size);
    EROFS_OCI_TRY_ASSIGN(auto built, soci_layer(*std::move(parsed), layer, memory));
    return std::optional(SociLayer{std::move(built), bound});
  }
};

template <HttpTransport Transport, Clock Time>
[[nodiscard]] SociLookup soci_lookup(BasicRegistry<Transport, Time> const& registry,
                                     Image const& image, IndexUse use) {
  if (use == IndexUse::none || use == IndexUse::by_key) return {};
  bool const by_tag = !registry.reference().digest.has_value();
  auto const lookups = std::make_shared<SociLookups<Transport, Time>>(
      registry, image, use == IndexUse::trusted && by_tag);
  return [lookups](auto const& layer, auto const& memory) { return (*lookups)(layer, memory); };
}

}  // namespace detail

/// Finds an image in a registry.
/// @param backoff  how reads of its blobs are tried again, with the registry's clock
/// @param trust    whose indexes of its layers are taken, should they be asked for
/// @error{as BasicRegistry::resolve() and choose_layers(), as there}
template <HttpTransport Transport, Clock Time>
[[nodiscard]] Result<FoundImage> find_in_registry(BasicRegistry<Transport, Time> const& registry,
                                                  Platform const& platform,
                                                  LayerChoice const& choice, Backoff const& backoff,
                                                  IndexTrust const& trust) {
  EROFS_OCI_TRY_ASSIGN(auto const image, registry.resolve(platform));
  auto found = detail::found_image(image, choice, [&](Descriptor const& at) -> Result<AnySource> {
    return AnySource(Retry(registry.blob(at), backoff, registry.time()));
  });
  if (found) {
    auto lookups = detail::registry_lookups(registry, image, trust, backoff);
    found->index = std::move(lookups.index);
    found->tree = std::move(lookups.tree);
    found->soci = detail::soci_lookup(registry, image, trust.use);
  }
  return found;
}

/// Finds an image in an OCI layout.
/// @param name  of one: ImagePlace::layout
/// @error{as Layout::open()\, Layout::resolve() and choose_layers(), as there}
[[nodiscard]] Result<FoundImage> find_in_layout(ImageName const& name, Platform const& platform,
                                                LayerChoice const& choice);

/// A file as an image of one layer, without a digest.
/// @error{an errno, as Local::open()}
[[nodiscard]] Result<FoundImage> find_file(std::string const& path);

/// Finds an image by its name, wherever that says it is.
/// @param platform     empty: this machine's. Of a file it means nothing
/// @param in_registry  finds one that is in a registry
/// @error{Errc::invalid_argument, a choice of layers in a file\, or a platform or reference that
/// means nothing}
/// @error{as find_in_layout()\, find_file() and `in_registry`, as they say}
[[nodiscard]] Result<FoundImage> find_named(
    std::string const& name, LayerChoice const& choice, std::string const& platform,
    FunctionRef<Result<FoundImage>(Reference reference, Platform const& platform)> in_registry);

/// Computes the digests of layers that have none: those of plain files. Reads each of them once.
/// @error{as the blobs say}
[[nodiscard]] Result<void> find_digests(FoundImage& found);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/found_image_body.hpp>
#endif
