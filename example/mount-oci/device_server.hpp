// SPDX-License-Identifier: Apache-2.0
/// @file
/// The process that serves a mounted image.
#pragma once

#include "link.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// How the serving process lives.
enum class Life {
  daemon,      ///< leaves its caller's session, directory and streams behind
  foreground,  ///< stays, and tells a service manager when it is ready
};

/// Opens the image, sets a device up, says so over the link, and serves the device until it is
/// disconnected: by the last unmount, or by us when a signal comes, the mounting fails, or the
/// mounting process dies. Leaves no device behind.
/// @error{as open_source() and the kernel say}
[[nodiscard]] Result<void> serve_device(Options const& options, Link link, Life life, Log& log);

}  // namespace mount_oci
