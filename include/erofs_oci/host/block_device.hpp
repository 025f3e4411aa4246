// SPDX-License-Identifier: Apache-2.0
/// @file
/// block_device(), wait_for_block_device(): the node of a block device.
#pragma once

#include <cerrno>
#include <chrono>
#include <string>

#include <sys/stat.h>
#include <sys/types.h>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/wait.hpp>

namespace erofs_oci {

/// The device number of a path that is a block device.
/// @error{an errno, as stat(2); ENOTBLK}
[[nodiscard]] inline Result<dev_t> block_device(std::string const& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return fail_errno(errno, path);
  if (!S_ISBLK(status.st_mode)) return fail_errno(ENOTBLK, path);
  return status.st_rdev;
}

/// Waits until udev or devtmpfs has made the node of a device that is new.
/// @error{as block_device(), there is none after that time}
[[nodiscard]] inline Result<void> wait_for_block_device(
    std::string const& path, std::chrono::milliseconds longest = std::chrono::seconds(5)) {
  if (wait_for(longest, [&] { return block_device(path).has_value(); })) return {};
  EROFS_OCI_TRY(block_device(path));
  return {};
}

}  // namespace erofs_oci
