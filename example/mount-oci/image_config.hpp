// SPDX-License-Identifier: Apache-2.0
/// @file
/// What an image's configuration says of its layers.
#pragma once

#include <string>
#include <vector>

#include "find_image.hpp"

namespace mount_oci {

/// The digests of the layers' contents, by the image's configuration: for each layer of the image,
/// from the bottom up; none if the image has no configuration. Reads it. Blocks.
/// @error{Errc::digest_mismatch, the configuration is not what its digest names}
/// @error{Errc::corrupt, it is no configuration}
/// @error{as the source of the configuration, as it says}
[[nodiscard]] Result<std::vector<std::string>> diff_ids_of(FoundImage const& found);

}  // namespace mount_oci
