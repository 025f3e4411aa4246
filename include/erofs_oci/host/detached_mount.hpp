// SPDX-License-Identifier: Apache-2.0
/// @file
/// detached_erofs(): an EROFS that is mounted nowhere yet.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <string_view>
#include <utility>

#include <sys/mount.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// mount(2)'s flags as fsmount(2) wants them.
[[nodiscard]] constexpr unsigned mount_attributes(unsigned long flags) noexcept {
  constexpr std::array<std::pair<unsigned long, unsigned>, 6> table{
      {{MS_RDONLY, MOUNT_ATTR_RDONLY},
       {MS_NOSUID, MOUNT_ATTR_NOSUID},
       {MS_NODEV, MOUNT_ATTR_NODEV},
       {MS_NOEXEC, MOUNT_ATTR_NOEXEC},
       {MS_NOATIME, MOUNT_ATTR_NOATIME},
       {MS_NODIRATIME, MOUNT_ATTR_NODIRATIME}}};
  unsigned attributes = 0;
  for (auto const& [flag, attribute] : table) {
    if ((flags & flag) != 0) attributes |= attribute;
  }
  return attributes;
}

/// Has the kernel's EROFS open an image; MountPoint::attach() mounts what this yields.
/// @param source  a block device or, where the kernel can, a file
/// @param flags   mount(2) flags; read-only in any case
/// @param data    options for EROFS, separated by commas
/// @error{an errno, as mount(2) with its likely cause}
[[nodiscard]] inline Result<UniqueFd> detached_erofs(std::string const& source, unsigned long flags,
                                                     std::string_view data) {
  UniqueFd const context(::fsopen("erofs", FSOPEN_CLOEXEC));
  auto const set = [&](unsigned command, char const* key, char const* value) {
    return ::fsconfig(context.get(), command, key, value, 0) == 0;
  };
  auto ok = context && set(FSCONFIG_SET_STRING, "source", source.c_str()) &&
            set(FSCONFIG_SET_FLAG, "ro", nullptr);
  while (ok && !data.empty()) {
    std::string const word(data.substr(0, data.find(',')));
    data.remove_prefix(std::min(word.size() + 1, data.size()));
    auto const equals = word.find('=');
    ok = equals == word.npos ? set(FSCONFIG_SET_FLAG, word.c_str(), nullptr)
                             : set(FSCONFIG_SET_STRING, word.substr(0, equals).c_str(),
                                   word.substr(equals + 1).c_str());
  }
  ok = ok && set(FSCONFIG_CMD_CREATE, nullptr, nullptr);
  UniqueFd mount(ok ? ::fsmount(context.get(), FSMOUNT_CLOEXEC, mount_attributes(flags | MS_RDONLY))
                    : -1);
  if (mount) return mount;
  auto const number = errno;
  std::string_view why;
  if (number == ENODEV) why = " (this kernel has no EROFS, or cannot load it: modprobe erofs)";
  if (number == EPERM) why = " (this needs CAP_SYS_ADMIN in the first user namespace)";
  if (number == EINVAL) {
    why =
        " (dmesg may say more: blocks of 512 bytes need Linux 6.4, and EROFS refuses options that "
        "it does not know)";
  }
  if (number == ENOTBLK) {
    why = " (this kernel, or the file system of this file, has no file-backed EROFS)";
  }
  return fail_errno(number, "mount " + source + std::string(why));
}

}  // namespace erofs_oci
