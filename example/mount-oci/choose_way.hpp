// SPDX-License-Identifier: Apache-2.0
/// @file
/// Chooses the way in which an image is mounted on this machine.
#pragma once

#include <erofs_oci/host/choose_mount.hpp>

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// Probes this machine and chooses a way before anything is tried; if that way fails later, mount
/// reports its error and tries no other. Logs why the ways before it are not possible; loads the
/// nbd driver if it is needed.
/// @return a choice that has a way
/// @error{Errc::unsupported, no way that was asked for is open; the text says why}
[[nodiscard]] Result<erofs_oci::MountChoice> choose_way(Attach wanted,
                                                        erofs_oci::ImageNeeds const& image,
                                                        Log const& log);

}  // namespace mount_oci
