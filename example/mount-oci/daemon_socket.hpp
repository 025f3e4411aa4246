// SPDX-License-Identifier: Apache-2.0
/// @file
/// listen_as_daemon(), DaemonWatch: show other processes when the process that serves a mount has
/// ended.
#pragma once

#include <chrono>

#include <sys/types.h>

#include "process.hpp"

namespace mount_oci {

/// An abstract socket whose name is made from the mounted file system's device number: while it is
/// open, a DaemonWatch can wait for this process. The kernel closes it when its process ends in any
/// way. No data are sent on it. On an error there is none, and a DaemonWatch does not wait.
[[nodiscard]] UniqueFd listen_as_daemon(dev_t device);

/// The other end: connect before unmounting, wait afterwards.
class DaemonWatch {
 public:
  /// Connects to the process that serves this file system, if root or our own user runs it.
  [[nodiscard]] static DaemonWatch of(dev_t device);

  /// Waits for the process to end; yields whether it did in time. Returns true at once without a
  /// connection.
  [[nodiscard]] bool wait(std::chrono::milliseconds longest) const;

 private:
  explicit DaemonWatch(UniqueFd fd = UniqueFd()) noexcept : fd_(std::move(fd)) {}
  UniqueFd fd_;  // connected to the process; none: there is no such process
};

}  // namespace mount_oci
