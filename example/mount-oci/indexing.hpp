// SPDX-License-Identifier: Apache-2.0
/// @file
/// Indexes for the layers of an image: looked up, or built.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/image/index_store.hpp>

#include "find_image.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// The layers' indexes and where they are kept.
struct IndexedImage {
  std::unique_ptr<erofs_oci::IndexStore const> store;  ///< null: nowhere
  std::vector<erofs_oci::StoredLayer> indexes;         ///< in the order of the found layers
  std::shared_ptr<erofs_oci::ImageMemory> memory;      ///< what they may take

  /// For what else the store can hold; borrows the store and `log`.
  [[nodiscard]] erofs_oci::IndexOptions options(Log const& log) const;
};

/// Where the store is that the options name.
/// @error{Errc::not_found, `none`}
/// @error{as erofs_oci::IndexStore::default_path() says}
[[nodiscard]] Result<std::string> store_path(ImageOptions const& options);

/// A store that may be reader_user()'s.
/// @error{as erofs_oci::IndexStore::open() says}
[[nodiscard]] Result<erofs_oci::IndexStore> open_store_at(std::string const& path,
                                                          erofs_oci::StoreLimit limit = {});

/// The store that the options name; null for `none`.
/// @error{an errno, as mkdir(2)}
[[nodiscard]] Result<std::unique_ptr<erofs_oci::IndexStore const>> open_store(
    ImageOptions const& options, Log const& log);

/// A store that is reached by its directory, once that is held: a user who reads images may not get
/// there by the path.
class HeldStore {
 public:
  /// Of no store.
  HeldStore() = default;
  /// Holds the directory there, if it can be.
  explicit HeldStore(std::string const& path);

  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(directory_); }

  /// What it yields must not outlive this.
  /// @error{as open_store_at(), as there}
  [[nodiscard]] Result<erofs_oci::IndexStore> open() const;

 private:
  erofs_oci::UniqueFd directory_;
};

/// The image whose claims of its layers the options take; empty: nobody's.
[[nodiscard]] std::optional<erofs_oci::Digest> claims_of(FoundImage const& found,
                                                         ImageOptions const& options);

/// Looks up or builds an index for each layer and shows the progress. Blocks. Reads a plain file
/// once more before, and puts its digest into `found`.
/// @param guard  what a signal does during this call; null: its default action
/// @error{Errc::stopping, a signal came}
/// @error{as erofs_oci::index_layers() says}
[[nodiscard]] Result<IndexedImage> index_image(FoundImage& found, ImageOptions const& options,
                                               Log const& log, ExitOnSignal const* guard);

}  // namespace mount_oci
