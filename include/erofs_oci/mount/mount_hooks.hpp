// SPDX-License-Identifier: Apache-2.0
/// @file
/// MountPlan, MountHooks and MountEnd: what a MountSupervisor takes and yields.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <poll.h>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/host/unmount.hpp>
#include <erofs_oci/mount/mount_channel.hpp>
#include <erofs_oci/mount/mount_machine.hpp>
#include <erofs_oci/mount/mount_worker.hpp>
#include <erofs_oci/mount/worker_process.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/recovery/supervision.hpp>

namespace erofs_oci {

/// What a supervisor keeps.
struct MountPlan {
  MountWay way{};
  MountOutline::Origin origin = MountOutline::Origin::fresh;
  /// Absolute path of the mount point. Empty: it is not known yet, or in another mount namespace.
  std::string target{};
  /// Of a mount that exists already: its number, by mount_id_of(). Only that one is unmounted, and
  /// nothing that is mounted over it. Empty: it is not known, and unmounting is left to others.
  std::optional<std::uint64_t> mount_id{};
  /// The worker is a thread of this process, and is not replaced.
  bool in_process = false;
  NbdDeviceOptions device{};             ///< for NBD
  std::optional<std::uint32_t> index{};  ///< of a device that exists already
  SupervisionOptions supervision{};
  std::vector<int> keep{};  ///< descriptors that workers inherit, such as a log file's
};

/// How important a message of a supervisor is.
enum class MountSeverity : std::uint8_t { error, warning, info };

/// What a supervisor needs and tells. All are called on the thread of MountSupervisor::run(), but
/// for `work`; all may be empty, but for `work` and `announce`.
struct MountHooks {
  /// In each worker: opens the image and serves it by a MountWorker; yields the exit status, which
  /// is SupervisionOptions::final_status if the next worker would fail, too.
  WorkerProcess::Work work{};
  /// A worker has opened the image, whose device may be given another size here.
  std::function<Result<void>(WorkerImage& image)> opened{};
  /// A new device is about to be set up.
  std::function<void()> attaching{};
  /// This process has the front end: a device that was set up, or what another process gave.
  std::function<void()> attached{};
  /// Asks the process that serves the mount now for its front end: a message of sockets or of a
  /// connection. May wait.
  std::function<Result<MountMessage>()> take{};
  /// The first read was answered: mount the device, or, if it is empty, look at what is mounted by
  /// FUSE; then MountSupervisor::mounted() or mounting_failed().
  std::function<void(std::string const& device)> announce{};
  /// The mount stands.
  /// @param warning  for the user, or empty
  std::function<void(std::string const& warning)> settled{};
  /// Unmounts what else is mounted of the file system than MountPlan::target, before that is; in a
  /// child of this process, where it may wait, or, with UnmountBusy::detach, in this one.
  /// @return whether nothing of it was in use
  std::function<bool(UnmountBusy busy)> unmount_others{};
  /// Another process serves the mount from here on, and wants its record.
  std::function<void()> let_go{};
  std::function<void()> started{};                         ///< a worker was started
  std::function<void(std::string const& text)> counted{};  ///< MountWorker::counts()
  std::function<void(MountSeverity, std::string const& text)> log{};
  /// Adds what else this process waits for, each time that it waits; see SupervisorHooks.
  std::function<void(std::vector<pollfd>&)> watch{};
  std::function<void(std::span<pollfd const>)> act{};
};

/// How a mount ended.
enum class MountEnd : std::uint8_t {
  ended,        ///< the kernel has it no more
  handed_over,  ///< another process serves it
  given_up,  ///< no worker can serve it; MountSupervisor::last_error() says why. What can be taken
             ///< over later is left as it is
};

}  // namespace erofs_oci
