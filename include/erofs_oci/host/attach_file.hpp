// SPDX-License-Identifier: Apache-2.0
/// @file
/// Mounting an EROFS image that is a file: by itself, or through a loop device. No FUSE.
#pragma once

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <sys/mount.h>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/host/detached_mount.hpp>
#include <erofs_oci/host/kernel_version.hpp>
#include <erofs_oci/host/loop_device.hpp>
#include <erofs_oci/host/mount_point.hpp>
#include <erofs_oci/host/unmount.hpp>
#include <erofs_oci/host/verity_device.hpp>
#include <erofs_oci/posix/path.hpp>

namespace erofs_oci {

/// What the kernel's EROFS reads an image file through.
enum class Backing : std::uint8_t {
  automatic,  ///< the file where the kernel can, else a loop device
  file,       ///< the file itself
  loop,       ///< a loop device
};

/// How an image file is mounted.
struct AttachOptions {
  Backing backing = Backing::automatic;
  LoopCache loop_cache = LoopCache::direct;
  unsigned long flags = MS_RDONLY;  ///< MS_ flags; MS_RDONLY is added
  std::string data{};               ///< options for EROFS, separated by commas
  KernelVersion kernel = running_kernel();
  std::optional<VerityTable> verity{};  ///< dm-verity is put over the loop device, which is taken
};

/// A mounted image file.
struct AttachedFile {
  std::string target;               ///< absolute, without symbolic links
  Backing backing = Backing::file;  ///< file or loop
  std::string device{};             ///< "/dev/loop3", or what is over it; empty for a file
  std::string reason{};             ///< why a loop device was taken; empty for a file
  std::uint64_t mount_id = 0;       ///< as mount_id_of()
};

namespace detail {

/// Mounts it there, and notes which mount that is.
[[nodiscard]] inline Result<void> attach_erofs(std::string const& source, MountPoint const& place,
                                               AttachOptions const& options,
                                               AttachedFile& attached) {
  EROFS_OCI_TRY_ASSIGN(auto const mount, detached_erofs(source, options.flags, options.data),
                       place.path());
  EROFS_OCI_TRY_ASSIGN(attached.mount_id, mount_id_of(mount.get()));
  return place.attach(mount.get());
}

/// Mounts it through a loop device and, if that is wanted, dm-verity.
[[nodiscard]] inline Result<void> attach_loop(std::string const& source, MountPoint const& place,
                                              AttachOptions const& options,
                                              AttachedFile& attached) {
  EROFS_OCI_TRY_ASSIGN(auto const device, LoopDevice::open(source, options.loop_cache));
  attached.backing = Backing::loop;
  attached.device = device.path();
  if (!options.verity) return attach_erofs(attached.device, place, options, attached);
  auto const verity = VerityDevice::open(device.path(), *options.verity);
  if (!verity && options.verity->required) return fail(verity.error());
  if (verity) attached.device = verity->path();
  attached.reason = verity ? "dm-verity" : verity.error().message() + "; nothing checks it";
  auto const mounted = attach_erofs(attached.device, place, options, attached);
  if (!mounted && verity) return fail(explain_verity(mounted.error()));
  return mounted;
}

}  // namespace detail

/// Mounts the EROFS image in a file.
///
/// `Backing::automatic` tries the file itself from Linux 6.12.2 on (two releases before it panic),
/// and takes a loop device on older kernels and where mount(2) says ENOTBLK: on tmpfs, on
/// overlayfs, or without the kernel's option. Any other error of the first way is final. With
/// `verity` it is always a loop device.
/// @param file    the image; absolute in /proc/mounts
/// @param target  an existing directory
/// @error{Errc::unsupported, Backing::file on a kernel that cannot or must not\, or no loop
/// devices}
/// @error{as MountPoint::open() and detached_erofs()\, and an errno of LOOP_CONFIGURE}
[[nodiscard]] inline Result<AttachedFile> attach_file(std::string const& file,
                                                      std::string const& target,
                                                      AttachOptions const& options = {}) {
  EROFS_OCI_TRY_ASSIGN(auto const source, real_path(file));
  EROFS_OCI_TRY_ASSIGN(auto const place, MountPoint::open(target));
  AttachedFile attached{place.path()};
  if (options.backing == Backing::loop || options.verity) {
    attached.reason = "asked for";
  } else if (file_backed_is_safe(options.kernel)) {
    auto const mounted = detail::attach_erofs(source, place, options, attached);
    if (mounted) return attached;
    auto const other_way = mounted.error().code.value() == ENOTBLK;
    if (options.backing == Backing::file || !other_way) return fail(mounted.error());
    attached.reason = "mount(2) of the file failed with ENOTBLK";
  } else {
    attached.reason = "Linux " + options.kernel.text() +
                      (options.kernel < file_backed_since ? " cannot mount a file as EROFS"
                                                          : " panics on file-backed EROFS");
    if (options.backing == Backing::file) return fail(Errc::unsupported, attached.reason);
  }
  EROFS_OCI_TRY(detail::attach_loop(source, place, options, attached));
  return attached;
}

/// Unmounts it, unless something else is mounted at its directory now. The kernel frees its loop
/// device.
/// @error{std::errc::device_or_resource_busy, it is in use}
/// @error{std::errc::invalid_argument, it is mounted there no more}
/// @error{an errno, as umount(2)}
[[nodiscard]] inline Result<void> detach_file(AttachedFile const& attached,
                                              UnmountBusy busy = UnmountBusy::refuse) {
  return detail::unmount_directly(attached.target, busy == UnmountBusy::detach ? MNT_DETACH : 0,
                                  attached.mount_id);
}

}  // namespace erofs_oci
