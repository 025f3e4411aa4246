// SPDX-License-Identifier: Apache-2.0
/// @file
/// Mounting an EROFS image that is a file: by itself, or through a loop device. No FUSE.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <sys/mount.h>
#include <sys/stat.h>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/fuse/kernel_version.hpp>
#include <erofs_oci/fuse/loop_device.hpp>
#include <erofs_oci/fuse/mount.hpp>

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
};

/// A mounted image file.
struct AttachedFile {
  std::string target;               ///< absolute, without symbolic links
  Backing backing = Backing::file;  ///< file or loop
  std::string device{};             ///< "/dev/loop3"; empty for a file
  std::string reason{};             ///< why a loop device was taken; empty for a file
  std::uint64_t file_system = 0;    ///< st_dev of what is mounted
};

namespace detail {

[[nodiscard]] inline Result<std::string> absolute_path(std::string const& path) {
  std::unique_ptr<char, decltype(&std::free)> const real(::realpath(path.c_str(), nullptr),
                                                         &std::free);
  if (!real) return fail_errno(errno, path);
  return std::string(real.get());
}

/// What mount(2)'s errno most likely means here.
[[nodiscard]] inline std::string_view explain_erofs_errno(int number) noexcept {
  switch (number) {
    case ENODEV: return " (this kernel has no EROFS, or cannot load it: modprobe erofs)";
    case EPERM: return " (this needs CAP_SYS_ADMIN in the first user namespace)";
    case EINVAL:
      return " (dmesg may say more: blocks of 512 bytes need Linux 6.4, and EROFS refuses options "
             "that it does not know)";
    case ENOTBLK:
      return " (this kernel, or the file system of this file, has no file-backed EROFS)";
    default: return "";
  }
}

[[nodiscard]] inline Result<void> mount_erofs(std::string const& source, std::string const& target,
                                              AttachOptions const& options) {
  auto const* const data = options.data.empty() ? nullptr : options.data.c_str();
  if (::mount(source.c_str(), target.c_str(), "erofs", options.flags | MS_RDONLY, data) == 0) {
    return {};
  }
  auto const number = errno;
  return fail_errno(number,
                    "mount " + source + " at " + target + std::string(explain_erofs_errno(number)));
}

[[nodiscard]] inline Result<AttachedFile> finish_attach(AttachedFile attached) {
  struct stat status{};
  if (::stat(attached.target.c_str(), &status) != 0) {
    auto const number = errno;
    ::umount2(attached.target.c_str(), MNT_DETACH);
    return fail_errno(number, attached.target + ": the root directory");
  }
  attached.file_system = status.st_dev;
  return attached;
}

}  // namespace detail

/// Mounts the EROFS image in a file.
///
/// `Backing::automatic` tries the file itself from Linux 6.12.2 on (two releases before it panic),
/// and takes a loop device on older kernels and where mount(2) says ENOTBLK: on tmpfs, on
/// overlayfs, or without the kernel's option. Any other error of the first way is final.
/// @param file    the image; absolute in /proc/mounts
/// @param target  an existing directory
/// @error{Errc::unsupported, Backing::file on a kernel that cannot or must not\, or no loop
/// devices}
/// @error{an errno, as mount(2)\, open(2) and LOOP_CONFIGURE; the text says what it most likely
/// means}
[[nodiscard]] inline Result<AttachedFile> attach_file(std::string const& file,
                                                      std::string const& target,
                                                      AttachOptions const& options = {}) {
  auto const source = detail::absolute_path(file);
  if (!source) return fail(source.error());
  auto directory = detail::absolute_path(target);
  if (!directory) return fail(std::move(directory).error());
  AttachedFile attached{*std::move(directory)};
  if (options.backing != Backing::loop) {
    if (file_backed_is_safe(options.kernel)) {
      auto const mounted = detail::mount_erofs(*source, attached.target, options);
      if (mounted) return detail::finish_attach(std::move(attached));
      auto const other_way = mounted.error().code.value() == ENOTBLK;
      if (options.backing == Backing::file || !other_way) return fail(mounted.error());
      attached.reason = "mount(2) of the file says ENOTBLK";
    } else {
      attached.reason = "Linux " + options.kernel.text() +
                        (options.kernel < file_backed_since ? " cannot mount a file as EROFS"
                                                            : " panics on file-backed EROFS");
      if (options.backing == Backing::file) return fail(Errc::unsupported, attached.reason);
    }
  } else {
    attached.reason = "asked for";
  }
  auto const device = LoopDevice::open(*source, options.loop_cache);
  if (!device) return fail(device.error());
  auto const mounted = detail::mount_erofs(device->path(), attached.target, options);
  if (!mounted) return fail(mounted.error());
  attached.backing = Backing::loop;
  attached.device = device->path();
  return detail::finish_attach(std::move(attached));
}

/// Unmounts it, unless something else is at its directory now. Its loop device goes with it.
/// @error{std::errc::device_or_resource_busy, it is in use}
/// @error{std::errc::invalid_argument, it is mounted there no more}
/// @error{an errno, as stat(2) and umount(2)}
[[nodiscard]] inline Result<void> detach_file(AttachedFile const& attached,
                                              UnmountBusy busy = UnmountBusy::refuse) {
  struct stat status{};
  auto const what = "unmount " + attached.target;
  if (::stat(attached.target.c_str(), &status) != 0) return fail_errno(errno, what);
  if (status.st_dev != attached.file_system) return fail_errno(EINVAL, what);
  auto const flags = UMOUNT_NOFOLLOW | (busy == UnmountBusy::detach ? MNT_DETACH : 0);
  if (::umount2(attached.target.c_str(), flags) != 0) return fail_errno(errno, what);
  return {};
}

}  // namespace erofs_oci
