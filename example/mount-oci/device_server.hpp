// SPDX-License-Identifier: Apache-2.0
/// @file
/// The process that serves a mounted image.
#pragma once

#include "daemon.hpp"
#include "link.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// Opens the image, attaches it in the way that the options and this machine leave, says so over
/// the link, and serves it until it is unmounted: by a user, or by us when a signal comes, the
/// mounting fails, or the mounting process dies. Leaves nothing behind.
/// @error{Errc::unsupported, this machine has no way that the options leave open}
/// @error{as open_source() and the kernel say}
[[nodiscard]] Result<void> serve_device(Options const& options, Link link, Life life, Log& log);

}  // namespace mount_oci
