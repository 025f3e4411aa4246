// SPDX-License-Identifier: Apache-2.0
/// @file
/// detached_erofs(), detached_clone(), clone_of_mount(): mounts that are attached nowhere yet.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/host/mount_point.hpp>

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

/// Makes another mount of what is mounted already, with flags of its own and without its
/// propagation; MountPoint::attach() mounts what this yields. The file system lives until the last
/// mount of it ends, this one included. Does not ask the file system for anything.
/// @param place  open on the root of the mount, O_PATH is enough
/// @param flags  mount(2) flags; read-only in any case
/// @error{an errno, as open_tree(2) and mount_setattr(2): EPERM without CAP_SYS_ADMIN\, ENOSYS
/// before Linux 5.12\, EINVAL if the mount is of another mount namespace or unbindable}
[[nodiscard]] inline Result<UniqueFd> detached_clone(int place, unsigned long flags) {
  UniqueFd clone(
      ::open_tree(place, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | unsigned{AT_EMPTY_PATH}));
  if (!clone) return fail_errno(errno, "open_tree");
  mount_attr attributes{};
  attributes.attr_set = mount_attributes(flags | MS_RDONLY);
  attributes.attr_clr = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |
                        MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME;
  attributes.propagation = MS_PRIVATE;
  if (::mount_setattr(clone.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) {
    return fail_errno(errno, "mount_setattr");
  }
  return clone;
}

/// detached_clone() of a mount that is at a path still.
/// @param target  where it is
/// @param mount   its number, by mount_id_of()
/// @error{EINVAL, another mount is there\, or none}
/// @error{as open_place() and detached_clone(), as there}
[[nodiscard]] inline Result<UniqueFd> clone_of_mount(std::string const& target, std::uint64_t mount,
                                                     unsigned long flags) {
  EROFS_OCI_TRY_ASSIGN(auto const place, open_place(target));
  EROFS_OCI_TRY_ASSIGN(auto const id, mount_id_of(place.get()));
  if (id != mount) return fail_errno(EINVAL, target + ": it is mounted there no more");
  return detached_clone(place.get(), flags);
}

/// Proves that files of a mount can be read: the root's inode and its first entries come from the
/// image. May wait for the server.
/// @param root    open on the mount's root directory; O_PATH is enough
/// @param target  for messages
/// @error{an errno, as fstat(2) and readdir(3)}
[[nodiscard]] inline Result<void> check_mounted(int root, std::string const& target) {
  UniqueFd fd(::openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  std::unique_ptr<DIR, int (*)(DIR*)> const folder(fd ? ::fdopendir(fd.get()) : nullptr,
                                                   &::closedir);
  if (!folder) return fail_errno(errno, target);
  static_cast<void>(fd.release());
  struct stat status{};
  if (::fstat(::dirfd(folder.get()), &status) != 0) return fail_errno(errno, target);
  errno = 0;
  if (::readdir(folder.get()) == nullptr) {
    return fail_errno(errno != 0 ? errno : EIO, target + ": read the root directory");
  }
  return {};
}

}  // namespace erofs_oci
