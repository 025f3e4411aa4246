// SPDX-License-Identifier: Apache-2.0
/// @file
/// What is mounted where, and which NBD device is behind it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "process.hpp"

namespace mount_oci {

/// A line of /proc/self/mountinfo.
struct MountEntry {
  dev_t device = 0;    ///< of the file system
  std::string target;  ///< absolute path, escapes decoded
  std::string type;    ///< "erofs"
  std::string source;  ///< "/dev/nbd0", escapes decoded
};

/// Decodes `\040` and its like: what the kernel makes of blanks and backslashes in paths.
[[nodiscard]] std::string decode_octal(std::string_view text);

/// Reads a mountinfo file's text; lines that are none are left out.
/// @spec{Linux Documentation/filesystems/proc.rst 3.5}
[[nodiscard]] std::vector<MountEntry> parse_mount_table(std::string_view text);

/// This process's own.
/// @error{an errno, as open(2) and read(2)}
[[nodiscard]] Result<std::vector<MountEntry>> read_mount_table();

/// The topmost mount at a path: the last of its lines.
[[nodiscard]] std::optional<MountEntry> find_target(std::vector<MountEntry> const& table,
                                                    std::string_view path);

/// The number of the NBD device behind a device number, or nothing.
[[nodiscard]] std::optional<std::uint32_t> nbd_index_of(dev_t device,
                                                        std::string const& root = "/sys/dev/block");

/// The device number of a path that is a block device.
/// @error{an errno, as stat(2); ENOTBLK}
[[nodiscard]] Result<dev_t> block_device(std::string const& path);

/// The absolute path without symbolic links.
/// @error{an errno, as realpath(3)}
[[nodiscard]] Result<std::string> real_path(std::string const& path);

}  // namespace mount_oci
