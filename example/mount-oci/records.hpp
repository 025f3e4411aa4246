// SPDX-License-Identifier: Apache-2.0
/// @file
/// The mounts that are written down.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <erofs_oci/recovery/journal.hpp>
#include <erofs_oci/recovery/record_fields.hpp>

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// A mount that is written down.
struct NotedMount {
  std::string name;                         ///< of the record
  std::optional<erofs_oci::Record> record;  ///< empty: it cannot be read
  std::string problem;                      ///< why not
  bool held = false;                        ///< its daemon lives

  /// Whether the kernel has its device, or FUSE mount, still.
  [[nodiscard]] bool is_connected() const;

  /// "/dev/nbd0", or empty.
  [[nodiscard]] std::string device() const;

  /// The image, as a user would name it.
  [[nodiscard]] std::string image() const;
};

/// The number of the NBD device that a mount point or device means, or nothing. Opens neither.
[[nodiscard]] std::optional<std::uint32_t> nbd_index_of_target(std::string const& target);

/// All that are written down, sorted by name; none if there is no journal.
/// @error{as erofs_oci::Journal says}
[[nodiscard]] Result<std::vector<NotedMount>> noted_mounts(Options const& options);

/// The one that a mount point or device means.
/// @error{Errc::not_found, none}
[[nodiscard]] Result<NotedMount> noted_mount(Options const& options, std::string const& target);

}  // namespace mount_oci
