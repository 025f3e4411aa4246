// SPDX-License-Identifier: Apache-2.0
/// @file
/// The Merkle tree of an image, by which the kernel's dm-verity checks what it is served.
#pragma once

#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/digest/verity_tree.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/host/host_support.hpp>
#include <erofs_oci/host/verity_device.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/image/remote_index.hpp>
#include <erofs_oci/recovery/record.hpp>

#include "image.hpp"
#include "options.hpp"
#include "process.hpp"
#include "push_index.hpp"

namespace mount_oci {

/// Reads all of an image, and keeps the tree over it in the store. Blocks.
/// @error{Errc::stopping, `stop` was requested}
/// @error{as the image's source and IndexStore::put_verity(), as they say}
[[nodiscard]] Result<erofs_oci::VerityTree> make_tree(erofs_oci::MergedImage const& image,
                                                      erofs_oci::IndexStore const& store,
                                                      std::stop_token const& stop);

/// Takes the tree of the image from the registry into the store, if a key has signed one; all of
/// it. Blocks.
/// @error{Errc::digest_mismatch, the registry sends something else}
/// @error{as the registry and IndexStore::put_verity(), as they say}
[[nodiscard]] Result<void> fetch_tree(erofs_oci::TreeLookup const& lookup,
                                      erofs_oci::MergedImage const& image,
                                      erofs_oci::IndexStore const& store, Log const& log);

/// A tree in a store, to be pushed.
/// @error{as the store and the image's source, as they say}
[[nodiscard]] Result<TreeToPush> tree_to_push(erofs_oci::MergedImage const& image,
                                              erofs_oci::IndexStore const& store,
                                              erofs_oci::VerityTree const& tree);

/// The tree that the store has of the image; empty if it has none, or one that is damaged.
[[nodiscard]] std::optional<FoundTree> find_tree(erofs_oci::MergedImage const& image,
                                                 erofs_oci::IndexStore const& store,
                                                 Log const& log);

/// Puts the tree behind the image's data, if the options want one.
/// @error{Errc::not_found, there is none\, but the options require it}
/// @error{Errc::mismatch, it has not the root hash that the options name}
[[nodiscard]] Result<void> append_tree(OpenedImage& opened, ImageOptions const& options,
                                       Log const& log);

/// What the kernel is to be told of the recorded image; empty: nothing.
[[nodiscard]] std::optional<erofs_oci::VerityTable> verity_table(
    erofs_oci::RecordImage const& image, VerityUse use);

/// The root hash in hexadecimal digits; empty: there is no tree.
[[nodiscard]] std::string root_text(erofs_oci::RecordImage const& image);

/// Why the kernel cannot check an image that is mounted in this way; empty: it can.
[[nodiscard]] std::string verity_obstacle(erofs_oci::MountWay way,
                                          erofs_oci::HostSupport const& host);

/// Turns `oci.verity` off if the kernel cannot check the image.
/// @error{Errc::unsupported, it cannot\, but the options require it}
[[nodiscard]] Result<void> settle_verity(ImageOptions& options, erofs_oci::MountWay way,
                                         Log const& log);

/// Requires of the worker's tree what the user does.
/// @param table  as verity_table()
/// @error{Errc::mismatch, there is no tree\, or one with another root hash}
[[nodiscard]] Result<void> check_verity(std::optional<erofs_oci::VerityTable> const& table,
                                        ImageOptions const& options);

/// A table as text for another process, `DATA_SIZE REQUIRED ROOT`, and back; empty: none.
[[nodiscard]] std::string table_text(std::optional<erofs_oci::VerityTable> const& table);
[[nodiscard]] Result<std::optional<erofs_oci::VerityTable>> parse_table(std::string_view text);

}  // namespace mount_oci
