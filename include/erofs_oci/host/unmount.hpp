// SPDX-License-Identifier: Apache-2.0
/// @file
/// unmount(): ends a mount of any kind, with and without privileges.
#pragma once

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/host/mount_point.hpp>
#include <erofs_oci/host/privilege.hpp>
#include <erofs_oci/posix/path.hpp>
#include <erofs_oci/posix/program.hpp>

namespace erofs_oci {

/// Whether a file system in use is unmounted.
enum class UnmountBusy : std::uint8_t {
  refuse,  ///< EBUSY
  detach,  ///< it is detached from its directory now, and ends with its last user
};

namespace detail {

/// umount(2) of a name in a directory that is held open. The mount itself is not: that would keep
/// it busy.
[[nodiscard]] inline Result<void> unmount_directly(std::string directory, int flags,
                                                   std::optional<std::uint64_t> only) {
  auto const what = "unmount " + directory;
  while (directory.size() > 1 && directory.ends_with('/')) directory.pop_back();
  EROFS_OCI_TRY_ASSIGN(auto const folder, open_place(folder_of(directory)), what);
  auto name = directory.substr(directory.rfind('/') + 1);
  if (name.empty()) name = ".";
  if (only) {
    UniqueFd const top(::openat(folder.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!top) return fail_errno(errno, what);
    EROFS_OCI_TRY_ASSIGN(auto const id, mount_id_of(top.get()), what);
    if (id != *only) {
      return fail_errno(EINVAL,
                        what + ": another file system is mounted there now, perhaps over it");
    }
  }
  auto const held = "/proc/self/fd/" + std::to_string(folder.get());
  // The /proc of another mount namespace may be of other processes.
  auto const place = ::access(held.c_str(), F_OK) == 0 ? held + '/' + name : directory;
  if (::umount2(place.c_str(), flags | UMOUNT_NOFOLLOW) != 0) return fail_errno(errno, what);
  return {};
}

}  // namespace detail

/// Unmounts the file system at a directory, with umount(2) or, if this process may not, with
/// fusermount3 -u, which unmounts only FUSE. Blocks.
/// @param helper  the program in place of fusermount3; looked up in PATH
/// @param only    the number of the mount that is meant, by mount_id_of(); empty: the topmost there
/// @error{std::errc::device_or_resource_busy, it is in use; only by umount(2)}
/// @error{std::errc::invalid_argument, nothing is mounted there\, or on top another mount than
/// `only`}
/// @error{std::errc::io_error, fusermount3 refuses; the text is its own}
/// @error{an errno, as umount(2)}
[[nodiscard]] inline Result<void> unmount(std::string const& directory, UnmountBusy busy,
                                          std::string const& helper = "fusermount3",
                                          std::optional<std::uint64_t> only = std::nullopt) {
  if (may_mount()) {
    auto const flags = busy == UnmountBusy::detach ? MNT_DETACH : 0;
    return detail::unmount_directly(directory, flags, only);
  }
  auto const what = helper + " -u " + directory;
  std::vector<std::string> words{helper, "-u", "-q", "--", directory};
  if (busy == UnmountBusy::detach) words.insert(words.begin() + 2, "-z");
  EROFS_OCI_TRY_ASSIGN(auto program, ReportingProgram::start(std::move(words)), what);
  return program.wait(what);
}

/// Escapes a value for a list of mount options with backslashes.
[[nodiscard]] inline std::string escape_mount_option(std::string_view value) {
  std::string text;
  for (auto const c : value) {
    if (c == ',' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

}  // namespace erofs_oci
