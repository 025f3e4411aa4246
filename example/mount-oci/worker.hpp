// SPDX-License-Identifier: Apache-2.0
/// @file
/// The process that reads an image for a mount, and can be replaced by the next one.
#pragma once

#include <optional>
#include <string>

#include <erofs_oci/fuse/choose_mount.hpp>
#include <erofs_oci/recovery/heartbeat.hpp>
#include <erofs_oci/recovery/record_fields.hpp>

#include "link.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// What a worker begins with.
struct WorkerTask {
  Options options;
  std::optional<erofs_oci::Record> record;  ///< of what was served before; empty: nothing
  erofs_oci::MountWay way{};                ///< that the supervisor has chosen
  std::string target;                       ///< absolute; for FUSE
  Link link;                                ///< to the supervisor
  erofs_oci::Heartbeat heartbeat;
};

/// Opens the image, tells the supervisor, waits for its word, and serves until there is nothing
/// more to serve. Over the link go, in this order: `opened` from here; `port` from there; for FUSE
/// `connected` from here; `settled` from there when nobody reads this process's standard error any
/// more.
/// @return the exit status: 0 if nothing is left to serve; 1 if it was told to stop; that of a
/// failure that another worker may not have; or, if it will have it too,
/// erofs_oci::SupervisionOptions::final_status
[[nodiscard]] int run_worker(WorkerTask task, Log& log);

}  // namespace mount_oci
