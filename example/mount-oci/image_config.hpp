// SPDX-License-Identifier: Apache-2.0
/// @file
/// An image's configuration: what it says of its layers, and of what runs in it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <erofs_oci/oci/json.hpp>

#include "find_image.hpp"

namespace mount_oci {

/// The image's configuration, as its author wrote it; empty if the image has none. Blocks.
/// @error{Errc::digest_mismatch, it is not what its digest names}
/// @error{Errc::corrupt, it is no JSON}
/// @error{as its source, as that says}
[[nodiscard]] Result<std::optional<erofs_oci::json::Value>> read_config_of(FoundImage const& found);

/// The digests of the layers' contents, by the image's configuration: for each layer of the image,
/// from the bottom up; none if the image has no configuration. Blocks.
/// @error{as read_config_of(), as there}
/// @error{Errc::corrupt, it is no configuration}
[[nodiscard]] Result<std::vector<std::string>> diff_ids_of(FoundImage const& found);

}  // namespace mount_oci
