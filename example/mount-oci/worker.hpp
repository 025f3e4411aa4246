// SPDX-License-Identifier: Apache-2.0
/// @file
/// What reads an image for a mount: a process, which can be replaced by the next one, or a thread
/// of the supervisor's process.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/mount/worker_process.hpp>
#include <erofs_oci/recovery/record.hpp>

#include "mount_report.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// The input of a worker.
struct WorkerTask {
  Options options;
  std::optional<erofs_oci::Record> record;  ///< of what was served before; empty: nothing
  erofs_oci::MountWay way{};                ///< that the supervisor has chosen
  std::string target;                       ///< absolute; for FUSE
  erofs_oci::WorkerSeat seat;
  /// Of the supervisor's process, for a worker that is a thread of it: heard until the image is
  /// open.
  Signals const* signals = nullptr;
  std::vector<ByteRange> read{};  ///< of the device, by earlier workers; see WorkerCounts
};

/// Opens the image and serves it, as erofs_oci::MountWorker does. A worker that is a process gives
/// up its privileges first; see become_reader().
/// @return the exit status: 0 if nothing is left to serve; 1 if it was told to stop; 2 after a
/// failure that another worker may not have; or, if it will have it too,
/// erofs_oci::SupervisionOptions::final_status
[[nodiscard]] int run_worker(WorkerTask task, Log& log);

}  // namespace mount_oci
