// SPDX-License-Identifier: Apache-2.0
/// @file
/// Becoming a process that outlives its caller.
#pragma once

#include <vector>

#include "process.hpp"

namespace mount_oci {

/// How a serving process runs.
enum class Life {
  daemon,      ///< leaves its caller's session, directory and streams behind
  foreground,  ///< stays, and tells a service manager when it is ready
};

/// Leaves the caller's session and closes what it left open, but for `keep`; its standard error
/// stays for now.
/// @error{an errno, as open(2) of /dev/null}
[[nodiscard]] Result<void> leave_caller(std::vector<int> keep);

/// Gives the caller's standard error back.
void leave_streams(Log& log) noexcept;

/// Locks this process's memory, so that it never needs a page of the file system that it serves:
/// loads and locks the program and its libraries now, and everything else when it is touched. Does
/// nothing for a user with a limit of locked memory, because later allocations would fail.
void lock_memory(Log const& log);

/// Makes the kernel end this process first when memory runs out: it can be replaced.
void die_first(Log const& log);

/// Tells the service manager, if there is one, that the service is ready.
void notify_ready(Log const& log);

}  // namespace mount_oci
