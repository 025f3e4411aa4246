// SPDX-License-Identifier: Apache-2.0
/// @file
/// Pushes the indexes of an image's layers into a registry.
#pragma once

#include <optional>
#include <string>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/signature.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/layout_writer.hpp>
#include <erofs_oci/oci/reference.hpp>

#include "find_image.hpp"
#include "indexing.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// Where indexes go, and who signs them.
struct PushTarget {
  std::string place;                                ///< for the user
  erofs_oci::Reference repository;                  ///< unless `layout` is set
  std::optional<erofs_oci::LayoutWriter> layout{};  ///< in place of a registry
  ImageOptions access;                              ///< how its registry is reached, and as whom
  std::optional<erofs_oci::PrivateKey> key{};
};

/// The Merkle tree of an image.
struct TreeToPush {
  erofs_oci::Bytes file;
  erofs_oci::Digest root;
  erofs_oci::Digest metadata;  ///< of the merged metadata
};

/// Opens the way to the registry or layout that `index` puts indexes into, and reads the key, as
/// long as this process may; empty: nothing is pushed. Makes no request.
/// @error{as prepare_registry(), LayoutWriter::open(), PrivateKey::from_pem() and
/// read_trusted_file(), as they say}
[[nodiscard]] Result<std::optional<PushTarget>> prepare_push(Options const& options,
                                                             Log const& log);

/// Puts the indexes into the repository or layout, then the artifact that refers to the image, then
/// its signature; with `dry_run`, nothing.
/// @param tree  goes with them; null: none does
/// @return what was done, for the user
/// @error{as erofs_oci::BasicPusher, as there}
/// @error{Errc::not_found, `with_start_list`\, and the store has no start list of the image}
[[nodiscard]] Result<erofs_oci::json::Value> push_indexes(PushTarget const& target,
                                                          PushIndexOptions const& options,
                                                          FoundImage const& found,
                                                          IndexedImage const& indexed,
                                                          TreeToPush const* tree, Log const& log);

/// The same as text.
[[nodiscard]] std::string push_text(erofs_oci::json::Value const& pushed);

}  // namespace mount_oci
