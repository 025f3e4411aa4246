// SPDX-License-Identifier: Apache-2.0
/// @file
/// From a name to layers: the one part that knows registries, layouts and files.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/image/layers.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/recovery/record_fields.hpp>
#include <erofs_oci/tarindex/build.hpp>

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// One layer that was found.
struct FoundLayer {
  std::size_t number = 0;            ///< in the image, from 0
  erofs_oci::Descriptor descriptor;  ///< without a digest for a plain file
  erofs_oci::Shared<erofs_oci::AnySource> blob;

  /// As the library wants it; shares the blob.
  [[nodiscard]] erofs_oci::ImageLayer layer() const {
    return {descriptor, erofs_oci::AnySource(blob), number};
  }
};

/// A layer's indexes from the registry's SOCI index.
struct SociLayer {
  erofs_oci::tarindex::BuiltLayer built;
  bool bound = false;  ///< the image names the index by its digest
};

/// Looks a layer up there; empty if it has none.
using SociLookup =
    std::function<Result<std::optional<SociLayer>>(erofs_oci::Descriptor const& layer)>;

/// What the options name.
struct FoundImage {
  std::string name;                                ///< as the user gave it
  std::optional<erofs_oci::Digest> digest;         ///< of the manifest; none for a plain file
  std::optional<erofs_oci::Platform> platform;     ///< if an index says so
  std::optional<erofs_oci::Descriptor> config_at;  ///< of the image's configuration
  std::optional<erofs_oci::Shared<erofs_oci::AnySource>> config;
  std::size_t layer_count = 1;     ///< of the whole image
  SociLookup soci;                 ///< empty: no SOCI index can be had
  std::vector<FoundLayer> layers;  ///< those that were asked for, from the bottom up

  /// As the library wants them; they share the blobs.
  [[nodiscard]] std::vector<erofs_oci::ImageLayer> image_layers() const {
    std::vector<erofs_oci::ImageLayer> result;
    for (auto const& layer : layers) result.push_back(layer.layer());
    return result;
  }
};

/// Finds the image that the options name, and of it the layer that they name, or all.
/// @error{Errc::invalid_argument, a reference\, path or choice of layer that means nothing}
/// @error{as the sources say}
[[nodiscard]] Result<FoundImage> find_image(ImageOptions const& options, Log const& log);

/// Finds the same layers again, without a tag or a manifest and, in a registry, without a request.
/// Files must be those that they were.
/// @param options  how to reach them
/// @error{Errc::mismatch, a file is another one than it was}
/// @error{as the sources say}
[[nodiscard]] Result<FoundImage> find_again(erofs_oci::RecordImage const& image,
                                            ImageOptions const& options, Log const& log);

/// The directory of an OCI layout, from what stands behind `oci:`.
[[nodiscard]] std::string layout_directory(std::string_view text);

/// Whether a name means a file of its own.
[[nodiscard]] bool names_file(std::string_view name) noexcept;

}  // namespace mount_oci
