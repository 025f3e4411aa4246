// SPDX-License-Identifier: Apache-2.0
/// @file
/// By which way an image is mounted on this machine.
#pragma once

#include <erofs_oci/fuse/choose_mount.hpp>

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// Looks at this machine and decides, so that a failure later on is told as it is and nothing else
/// is tried in its place. Says which way and why; loads the nbd driver if that is to be used.
/// @error{Errc::unsupported, no way that was asked for is open; the text says why}
[[nodiscard]] Result<erofs_oci::MountWay> choose_way(Attach wanted,
                                                     erofs_oci::ImageNeeds const& image,
                                                     Log const& log);

}  // namespace mount_oci
