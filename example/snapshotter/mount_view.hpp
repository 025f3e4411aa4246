// SPDX-License-Identifier: Apache-2.0
/// @file
/// Whether others see what is mounted here.
#pragma once

#include <string>

#include <sys/types.h>

#include <erofs_oci/core/result.hpp>

namespace oci_snapshotter {

/// Mounts an empty file system at a directory for a moment, and looks for it among the mounts of
/// another process. In a mount namespace that passes nothing on, containerd would find
/// an empty directory where an image is mounted here.
///
/// @param directory  made for this, and removed
/// @param process    its number. Default: the machine's first
/// @error{Errc::unavailable, the process does not see it}
/// @error{as mkdir(2) and mount(2), as there}
[[nodiscard]] erofs_oci::Result<void> check_mounts_are_seen(std::string const& directory,
                                                            pid_t process = 1);

}  // namespace oci_snapshotter
