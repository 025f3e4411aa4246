// SPDX-License-Identifier: Apache-2.0
/// @file
/// Becoming a process that outlives its caller.
#pragma once

#include <vector>

#include "process.hpp"

namespace mount_oci {

/// How a serving process lives.
enum class Life {
  daemon,      ///< leaves its caller's session, directory and streams behind
  foreground,  ///< stays, and tells a service manager when it is ready
};

/// Closes all descriptors but the standard streams and those in `keep`.
void close_all_but(std::vector<int> keep) noexcept;

/// Leaves the caller's session and closes what it left open, but for `keep`; its standard error
/// stays for now.
/// @error{an errno, as open(2) of /dev/null}
[[nodiscard]] Result<void> leave_caller(std::vector<int> keep);

/// Gives the caller's standard error back.
void leave_streams(Log& log) noexcept;

/// Keeps this process from ever needing a page of the file system that it serves: all of it is
/// loaded and locked now; what it allocates later is locked as it is touched. Does
/// nothing for a user whose memory that may be locked is limited: later allocations would fail.
void lock_memory(Log const& log);

/// Tells a service manager that waits for it that the service is ready, if one does.
void notify_ready(Log const& log);

}  // namespace mount_oci
