// SPDX-License-Identifier: Apache-2.0
/// @file
/// The supervisor: keeps a mount and replaces the workers that read for it.
#pragma once

#include <optional>
#include <string>

#include <erofs_oci/mount/mount_channel.hpp>

#include "daemon.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// An existing mount to take over.
struct EarlierMount {
  std::string journal;   ///< directory, absolute
  std::string name;      ///< of its record there
  bool replace = false;  ///< the process that serves it is alive, and hands it over
};

/// Keeps a mount until it ends, with a process of its own that reads the image or without
/// (`--no-supervise`); see erofs_oci::MountSupervisor. The first SIGTERM or SIGINT unmounts it, or
/// detaches it if it is in use; the second one ends it under its users. The mount ends, too, when
/// the mounting process ends before the mount stands. Leaves neither device nor record behind,
/// unless no worker can serve the mount any more: then the record stays, for `mount-oci reattach`.
/// @param options  for an earlier mount: with credentials, if they were given again
/// @param mounter  to the process that mounts; it gets `device` or `mounted`, answers `mounted`,
/// and
///                 gets `settled`; of an earlier mount it gets only the last
/// @error{as open_source() and the kernel say}
[[nodiscard]] Result<void> supervise(Options options, erofs_oci::MountChannel mounter, Life life,
                                     std::optional<EarlierMount> earlier, Log& log);

}  // namespace mount_oci
