// SPDX-License-Identifier: Apache-2.0
/// @file
/// IndexUse: which indexes of a registry are taken in place of reading a layer.
#pragma once

#include <cstdint>

namespace erofs_oci {

/// Which indexes of a registry are taken in place of reading a layer.
enum class IndexUse : std::uint8_t {
  none,     ///< no index
  by_key,   ///< index artifacts that one of the given keys has signed
  bound,    ///< these, and SOCI indexes that the image's manifest names by their digest
  trusted,  ///< also ones that only refer to the image, if that was asked for by a tag: who could
            ///< push a false index there could as well move the tag
};

}  // namespace erofs_oci
