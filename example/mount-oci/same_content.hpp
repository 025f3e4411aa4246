// SPDX-License-Identifier: Apache-2.0
/// @file
/// Whether two files of images have the same content.
#pragma once

#include <cstdint>

#include <erofs_oci/erofs/inode.hpp>

#include "image.hpp"

namespace mount_oci {

/// What is known of two contents.
enum class Sameness : std::uint8_t {
  same,
  different,
  unknown,  ///< only reading them would tell
};

/// A regular file of an image.
struct ContentOf {
  OpenedFiles const& image;
  erofs_oci::erofs::Inode const& file;
};

/// Compares two contents. Sizes tell, and where the bytes lie: those at the same place of the same
/// layer, as its digest names it, are the same, and so are holes. The rest is read if `reads` is
/// set, both sides piece by piece and no further than to the first difference.
/// @error{any, an image's metadata\, or what has to be read of it\, cannot be read}
[[nodiscard]] Result<Sameness> compare_contents(ContentOf const& a, ContentOf const& b, bool reads);

}  // namespace mount_oci
