// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a process gives up that reads what others have written.
#pragma once

#include "process.hpp"

namespace mount_oci {

/// Whether a worker has to mount by itself.
enum class Mounts : bool { no, yes };

/// Gives up, for good, every capability that a worker does not need, and the gaining of any by
/// running a program; keeps the reading of others' files, for credentials, the locking of memory,
/// and what mounts if it must. For the only thread of a process: others keep theirs.
/// @error{an errno, as prctl(2) and capset(2)}
[[nodiscard]] Result<void> drop_capabilities(Mounts mounts);

/// Makes system calls fail with EPERM that a reader of an image has no use for: those that mount,
/// trace, load modules, change namespaces or the clock, and the like. For all threads.
/// @error{an errno, as seccomp(2)}
[[nodiscard]] Result<void> refuse_system_calls();

}  // namespace mount_oci
