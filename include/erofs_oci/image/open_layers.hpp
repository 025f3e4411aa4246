// SPDX-License-Identifier: Apache-2.0
/// @file
/// open_layers: a whole image as the bytes of one device.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/open.hpp>

namespace erofs_oci {

/// An image made of layers.
struct MergedImage {
  DeviceImage device;
  AnySource metadata;               ///< the EROFS image alone; shared with `device`
  std::uint64_t metadata_size = 0;  ///< bytes
  std::string key{};                ///< of the merged image in an IndexStore
};

/// The uncompressed tar of one layer, each span of the blob checked before it is decoded.
/// @param index  the layer's, as index_layers() gives it
/// @error{Errc::mismatch, the index is not for this layer}
[[nodiscard]] Result<AnySource> open_contents(ImageLayer layer, StoredLayer const& index,
                                              ImageReadOptions const& options = {});

/// Puts the bytes of a device together that Linux mounts as the whole image: the merged metadata,
/// then the data of the layers that still show, from the bottom up. Whiteouts are applied and gone.
/// Nothing of a layer is read before it is needed, and every byte is checked against the digest of
/// its span.
/// @param layers   from the bottom up; owned from here on
/// @param indexes  theirs, as index_layers() gives them
/// @error{Errc::mismatch, an index is not for its layer}
/// @error{Errc::unsupported, the image takes 2 TiB or more}
[[nodiscard]] Result<MergedImage> open_layers(std::vector<ImageLayer> layers,
                                              std::vector<StoredLayer> const& indexes,
                                              ImageReadOptions const& options = {},
                                              IndexOptions const& index_options = {});

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/open_layers_body.hpp>
#endif
