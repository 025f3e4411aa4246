// SPDX-License-Identifier: Apache-2.0
/// @file
/// Overlay: makes a mounted image writable and keeps the changes elsewhere.
#pragma once

#include <string>

#include <erofs_oci/host/mount_point.hpp>

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// The overlay of `--writable`. The image is mounted at a private directory, and overlayfs (without
/// privileges fuse-overlayfs) at the target over it. Then the private directory is detached: the
/// overlay still holds the image, and one unmount ends both.
///
/// For one process: undo() or put_over() comes last, and leaves no private directory.
class Overlay {
 public:
  /// Makes the private directory, and the directories for the changes: `upper` and `work` in the
  /// one that the user names, else in memory, to be gone with the mount.
  /// @error{Errc::unsupported, no privileges and no fuse-overlayfs\, or no directory named then}
  /// @error{an errno, as mkdir(2) and mount(2)}
  [[nodiscard]] static Result<Overlay> prepare(MountOptions const& options);

  /// Where the image is to be mounted; absolute.
  [[nodiscard]] std::string lower() const { return private_ + "/lower"; }

  /// Mounts the overlay over what is mounted at lower() by now; yields the target's absolute path.
  /// @error{an errno, as mount(2); the text says which directory is on an unsuitable file system}
  [[nodiscard]] Result<std::string> put_over(MountOptions const& options);

  /// Removes what prepare() made, and unmounts the image at lower().
  void undo() noexcept;

 private:
  Overlay(std::string directory, std::string changes)
      : private_(std::move(directory)), changes_(std::move(changes)) {}

  [[nodiscard]] Result<void> by_kernel(erofs_oci::MountPoint const& place,
                                       unsigned long flags) const;
  [[nodiscard]] Result<void> by_program(std::string const& target, unsigned long flags) const;

  std::string private_;  // absolute; a tmpfs if we may mount; empty: none any more
  std::string changes_;  // absolute; has `upper` and `work`
};

}  // namespace mount_oci
