// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/open_named.hpp only declares.
#pragma once

#include <optional>
#include <utility>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/image/found_image.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/image/open_named.hpp>

namespace erofs_oci {

EROFS_OCI_BODY Result<MergedImage> open_found(FoundImage found, NamedImageOptions const& options) {
  std::optional<IndexStore> store;
  if (options.store) {
    EROFS_OCI_TRY_ASSIGN(store, IndexStore::open(*options.store));
  }
  auto index = options.index;
  index.store = store ? &*store : nullptr;
  EROFS_OCI_TRY(find_digests(found));
  EROFS_OCI_TRY_ASSIGN(auto const indexes, index_layers(found.image_layers(), index));
  return open_layers(found.image_layers(), indexes, options.read, index);
}

}  // namespace erofs_oci
