// SPDX-License-Identifier: Apache-2.0
/// @file
/// A file of an image as text and as JSON.
#pragma once

#include <string>
#include <string_view>

#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/oci/json.hpp>

#include "image.hpp"
#include "output.hpp"

namespace mount_oci {

/// The fields of the inode: path, type, mode, owner, size, times, links, target, device.
/// @error{as Reader::read_link(), as it says}
[[nodiscard]] Result<erofs_oci::json::Value> entry_json(ImageReader const& reader,
                                                        std::string_view path,
                                                        erofs_oci::erofs::Inode const& inode);

/// The attributes and where the data lie, added to entry_json()'s object.
[[nodiscard]] Result<void> add_details(ImageReader const& reader,
                                       erofs_oci::erofs::Inode const& inode,
                                       erofs_oci::json::Value& object);

/// " -> TARGET" of a symbolic link, else nothing.
[[nodiscard]] Result<std::string> link_text(ImageReader const& reader,
                                            erofs_oci::erofs::Inode const& inode,
                                            Output const& output);

/// The inode at a path that a user gave. Follows links on the way.
[[nodiscard]] Result<erofs_oci::erofs::Inode> find_path(ImageReader const& reader,
                                                        std::string const& path,
                                                        erofs_oci::erofs::Follow last);

/// A path from the image's root: with a slash in front and none behind.
[[nodiscard]] std::string path_in_image(std::string_view path);

}  // namespace mount_oci
