// SPDX-License-Identifier: Apache-2.0
/// @file
/// The mount table, and the NBD devices of its entries.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include <erofs_oci/host/block_device.hpp>
#include <erofs_oci/posix/path.hpp>

#include "process.hpp"

namespace mount_oci {

/// A line of /proc/self/mountinfo.
struct MountEntry {
  dev_t device = 0;      ///< of the file system
  std::uint64_t id = 0;  ///< of the mount, as erofs_oci::mount_id_of()
  std::string target;    ///< absolute path, escapes decoded
  std::string type;      ///< "erofs"
  std::string source;    ///< "/dev/nbd0", escapes decoded
  std::string root;      ///< what of the file system is mounted: "/" is all of it
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

/// The mounts of a whole file system, in their order: not those of a directory in it.
[[nodiscard]] std::vector<MountEntry> mounts_of(std::vector<MountEntry> const& table, dev_t device);

/// Whether it is a mount of this program, by its type and source: one of EROFS from an NBD device,
/// a loop device or a file that we serve; FUSE; or the overlay of a writable mount.
[[nodiscard]] bool is_ours(MountEntry const& entry);

/// Whether anything is mounted from a device that is called so; other mount namespaces may have it
/// mounted all the same.
[[nodiscard]] bool is_source(std::vector<MountEntry> const& table, std::string_view device);

/// The number of the NBD device behind a device number, also if dm-verity is between, or nothing.
[[nodiscard]] std::optional<std::uint32_t> nbd_index_of(dev_t device,
                                                        std::string const& root = "/sys/dev/block");

/// Whether a mount's source is a device of dm-verity of ours.
[[nodiscard]] bool is_verity_source(std::string_view source);

/// Whether a device number is that of such a device.
[[nodiscard]] bool is_verity_device(dev_t device, std::string const& root = "/sys/dev/block");

using erofs_oci::block_device;
using erofs_oci::real_path;

}  // namespace mount_oci
