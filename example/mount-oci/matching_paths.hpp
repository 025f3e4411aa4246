// SPDX-License-Identifier: Apache-2.0
/// @file
/// Paths of an image by a pattern of a shell.
#pragma once

#include <string>
#include <vector>

#include "image.hpp"

namespace mount_oci {

/// The paths that a pattern matches, in the order of their bytes; the text itself if it is a path
/// of the image, or if it matches nothing.
///
/// `*`, `?` and `[...]` mean what they mean to a shell: they match no slash, and no dot at the
/// beginning of a name; a backslash takes the meaning away from what is behind it. Symbolic links
/// on the way are followed.
/// @error{Errc::unsupported, it matches more than a million paths}
/// @error{any, a part of the image cannot be read}
[[nodiscard]] Result<std::vector<std::string>> matching_paths(ImageReader const& reader,
                                                              std::string const& pattern);

}  // namespace mount_oci
