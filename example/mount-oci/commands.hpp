// SPDX-License-Identifier: Apache-2.0
/// @file
/// The commands; main() picks one.
#pragma once

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// Serves an image over NBD on a socket until a signal comes; prints the URI when ready.
[[nodiscard]] Result<void> run_serve(Options const& options, Log& log);

/// Mounts an image and leaves processes that serve it, or serves it itself until it is unmounted.
[[nodiscard]] Result<void> run_mount(Options const& options, Log& log);

/// Unmounts a mount point or ends an NBD device, and waits until the processes that serve it have
/// ended.
[[nodiscard]] Result<void> run_umount(UmountOptions const& options, Log& log);

/// Takes over mounts whose worker and supervisor have died; returns when they are served again.
[[nodiscard]] Result<void> run_reattach(Options const& options, Log& log);

/// Prints the state of all recorded mounts.
[[nodiscard]] Result<void> run_status(Options const& options, Log& log);

/// Removes the records of mounts that are gone.
[[nodiscard]] Result<void> run_gc(Options const& options, Log& log);

/// Shows or empties what is kept of registries. Yields the exit status.
[[nodiscard]] Result<int> run_cache(Options const& options, Log& log);

/// Unmounts all recorded mounts.
[[nodiscard]] Result<void> run_umount_all(Options const& options, Log& log);

}  // namespace mount_oci
