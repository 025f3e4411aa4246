// SPDX-License-Identifier: Apache-2.0
/// @file
/// open_private_directory(): a directory that nobody but its owner can put files into;
/// make_parents().
#pragma once

#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// Opens a directory, or makes it for its owner alone (0700); its parent must exist. A symbolic
/// link at its place counts only if this process's user or root has made it.
/// @param owner  whose it is; of another user than this one, only root can make it
/// @error{an errno, as mkdir(2)\, open(2) and fchown(2); EPERM if another user owns it or may write
/// to it}
[[nodiscard]] inline Result<UniqueFd> open_private_directory(std::string const& path,
                                                             uid_t owner = ::geteuid()) {
  auto const refuse = [&](std::string const& why) { return fail_errno(EPERM, path + ": " + why); };
  auto const made = ::mkdir(path.c_str(), 0700) == 0;
  if (!made && errno != EEXIST && errno != EROFS) return fail_errno(errno, path);
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return fail_errno(errno, path);
  auto const is_link = S_ISLNK(status.st_mode);
  if (is_link && status.st_uid != ::geteuid() && status.st_uid != 0) {
    return refuse("a symbolic link of user " + std::to_string(status.st_uid));
  }
  EROFS_OCI_TRY_ASSIGN(auto fd, open_read(path, O_DIRECTORY | (is_link ? 0 : O_NOFOLLOW)));
  if (made && owner != ::geteuid() && ::fchown(fd.get(), owner, static_cast<gid_t>(-1)) != 0) {
    return fail_errno(errno, path);
  }
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, path);
  if (status.st_uid != owner || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return refuse("others could put false files there; it must belong to user " +
                  std::to_string(owner) + " and be writable by nobody else");
  }
  return fd;
}

/// Makes the directories that `path` is in, those that are not there.
/// @error{an errno, as mkdir(2)}
[[nodiscard]] inline Result<void> make_parents(std::string const& path) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (error) return fail(error, path);
  return {};
}

}  // namespace erofs_oci
