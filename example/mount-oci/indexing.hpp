// SPDX-License-Identifier: Apache-2.0
/// @file
/// Indexes for the layers of an image: looked up, or built.
#pragma once

#include <memory>
#include <vector>

#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/layers.hpp>

#include "find_image.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// The layers' indexes and where they are kept.
struct IndexedImage {
  std::unique_ptr<erofs_oci::IndexStore const> store;  ///< null: nowhere
  std::vector<erofs_oci::StoredLayer> indexes;         ///< in the order of the found layers

  /// For what else the store can hold; borrows the store and `log`.
  [[nodiscard]] erofs_oci::IndexOptions options(Log const& log) const;
};

/// The store that the options name; null for `none`.
/// @error{an errno, as mkdir(2)}
[[nodiscard]] Result<std::unique_ptr<erofs_oci::IndexStore const>> open_store(
    ImageOptions const& options, Log const& log);

/// Gets an index for each layer, showing how far it is. A plain file is read once more before, for
/// its digest, which `found` gets.
/// @param guard  what a signal does meanwhile; null: what it does by default
/// @error{Errc::stopping, a signal came}
/// @error{as erofs_oci::index_layers() says}
[[nodiscard]] Result<IndexedImage> index_image(FoundImage& found, ImageOptions const& options,
                                               Log const& log, ExitOnSignal const* guard);

}  // namespace mount_oci
