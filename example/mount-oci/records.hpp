// SPDX-License-Identifier: Apache-2.0
/// @file
/// The recorded mounts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <erofs_oci/recovery/journal.hpp>
#include <erofs_oci/recovery/record.hpp>

#include "mount_table.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// A recorded mount.
struct NotedMount {
  std::string name;                         ///< of the record
  std::optional<erofs_oci::Record> record;  ///< empty: it cannot be read
  std::string problem;                      ///< why not
  bool held = false;                        ///< a process holds the record's lock

  /// Whether the kernel has its device, or FUSE mount, still.
  [[nodiscard]] bool is_connected() const;

  /// The mounts of its whole file system in a mount table, whose device it has while it is
  /// connected; of a writable mount none.
  [[nodiscard]] std::vector<MountEntry> mounts(std::vector<MountEntry> const& table) const;

  /// Where they are. The recorded place is the first one if it is among them, and the only one if
  /// there are none, as in another mount namespace; without it there is none then.
  [[nodiscard]] std::vector<std::string> mount_points() const;

  /// "/dev/nbd0", or empty.
  [[nodiscard]] std::string device() const;

  /// The image, as a user would name it.
  [[nodiscard]] std::string image() const;

  /// Whether a user may have named its image so.
  [[nodiscard]] bool is_of_image(std::string const& wanted) const;
};

/// The number of the NBD device that a mount point or device means, or nothing. Opens neither.
[[nodiscard]] std::optional<std::uint32_t> nbd_index_of_target(std::string const& target);

/// All recorded mounts, sorted by name; none if there is no journal.
/// @error{as erofs_oci::Journal says}
[[nodiscard]] Result<std::vector<NotedMount>> noted_mounts(Options const& options);

/// The one that a mount point or device means.
/// @error{Errc::not_found, none}
[[nodiscard]] Result<NotedMount> noted_mount(Options const& options, std::string const& target);

}  // namespace mount_oci
