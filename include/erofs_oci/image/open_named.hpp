// SPDX-License-Identifier: Apache-2.0
/// @file
/// open_named(): all layers of an image, or the lowest ones, as one source, by the image's name.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include <erofs_oci/core/backoff.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/image/found_image.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/index_use.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/image/read_options.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/oci/registry.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {

/// What is opened of an image, and how.
struct NamedImageOptions {
  LayerChoice layers{};    ///< Default: all
  std::string platform{};  ///< "linux/arm64". Default: this machine's
  /// Directory of the IndexStore, which is made; a layer is then read once for all openings.
  /// Default: nothing is kept
  std::optional<std::string> store{};
  IndexOptions index{};  ///< but for its store
  ImageReadOptions read{};
  RegistryOptions registry{};
  Backoff backoff{};  ///< how reads of a registry's blobs are tried again
};

/// Opens what was found. Reads each layer once that the store has no index of, which may take long.
/// @error{as IndexStore::open()\, index_layers() and open_layers(), as there}
[[nodiscard]] Result<MergedImage> open_found(FoundImage found, NamedImageOptions const& options);

/// Finds an image by its name, as ImageName has it, and opens it. Indexes of the registry are not
/// asked for. A tag may lead elsewhere at the next call, a digest never.
/// @param transport  for all hosts of the registry
/// @error{as find_named()\, BasicRegistry::resolve() and open_found(), as there}
template <HttpTransport Transport>
[[nodiscard]] Result<MergedImage> open_named(std::string const& name,
                                             NamedImageOptions const& options,
                                             Transport const& transport) {
  auto const in_registry = [&](Reference reference,
                               Platform const& platform) -> Result<FoundImage> {
    EROFS_OCI_TRY_ASSIGN(
        auto const registry,
        BasicRegistry<Transport>::make(std::move(reference), options.registry, transport));
    return find_in_registry(registry, platform, options.layers, options.backoff,
                            {IndexUse::none, {}});
  };
  EROFS_OCI_TRY_ASSIGN(auto found, find_named(name, options.layers, options.platform, in_registry));
  return open_found(std::move(found), options);
}

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/open_named_body.hpp>
#endif
