// SPDX-License-Identifier: Apache-2.0
/// @file
/// The commands; main() picks one.
#pragma once

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// Serves an image over NBD on a socket until a signal comes; prints the URI when ready.
[[nodiscard]] Result<void> run_serve(Options const& options, Log& log);

/// Serves an OCI image layout as a registry until a signal comes; prints its URL when ready.
[[nodiscard]] Result<void> run_registry(RegistryOptions const& options, Log& log);

/// Mounts an image and leaves a daemon that serves it, or serves it itself until it is unmounted.
[[nodiscard]] Result<void> run_mount(Options const& options, Log& log);

/// Unmounts a mount point or ends an NBD device, and waits until its daemon is gone.
[[nodiscard]] Result<void> run_umount(UmountOptions const& options, Log& log);

/// Goes on with mounts whose daemon has died; done when they are served again.
[[nodiscard]] Result<void> run_reattach(Options const& options, Log& log);

/// Prints how the mounts that are written down are doing.
[[nodiscard]] Result<void> run_status(Options const& options, Log& log);

/// Removes the records of mounts that are gone.
[[nodiscard]] Result<void> run_gc(Options const& options, Log& log);

/// Unmounts all that is written down.
[[nodiscard]] Result<void> run_umount_all(Options const& options, Log& log);

}  // namespace mount_oci
