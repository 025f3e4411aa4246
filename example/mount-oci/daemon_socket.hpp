// SPDX-License-Identifier: Apache-2.0
/// @file
/// DaemonSocket: how others see that the process which serves a mount has ended.
#pragma once

#include <chrono>

#include <sys/types.h>

#include "process.hpp"

namespace mount_oci {

/// An abstract socket of a name that follows from the mounted file system's device number. The
/// kernel closes it with its process, however that ends, and nothing of it is left. It says
/// nothing.
class DaemonSocket {
 public:
  /// Is heard of by nobody.
  DaemonSocket() = default;

  /// Others can wait from now on. Where that cannot be, they do not wait.
  [[nodiscard]] static DaemonSocket listen(dev_t device);

 private:
  explicit DaemonSocket(UniqueFd fd) noexcept : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

/// The other end: made before a mount goes, and asked afterwards.
class DaemonWatch {
 public:
  /// Of whoever serves this file system, if it is root's process or of our own user.
  [[nodiscard]] static DaemonWatch of(dev_t device);

  /// Waits for its end; yields whether that came in time. At once if nobody serves it.
  [[nodiscard]] bool wait(std::chrono::milliseconds longest) const;

 private:
  explicit DaemonWatch(UniqueFd fd) noexcept : fd_(std::move(fd)) {}
  UniqueFd fd_;  // of the process, or connected to it; none: nobody
};

}  // namespace mount_oci
