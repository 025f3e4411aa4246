// SPDX-License-Identifier: Apache-2.0
/// @file
/// replace_file(): gives a file new content, all of it or none.
#pragma once

#include <cerrno>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/path.hpp>

namespace erofs_oci {

/// Removes a name from an open directory; a name that is not there is no error.
/// @error{an errno, as unlinkat(2)}
[[nodiscard]] inline Result<void> remove_at(int directory, std::string const& name) {
  if (::unlinkat(directory, name.c_str(), 0) == 0 || errno == ENOENT) return {};
  return fail_errno(errno, "remove " + name);
}

/// Renames inside an open directory and makes that last; a file that had the new name is gone.
/// @error{an errno, as renameat(2) and fsync(2)}
[[nodiscard]] inline Result<void> rename_at(int directory, std::string const& from,
                                            std::string const& to) {
  if (::renameat(directory, from.c_str(), directory, to.c_str()) != 0) {
    return fail_errno(errno, "rename " + from);
  }
  if (::fsync(directory) != 0) return fail_errno(errno, "sync the directory of " + to);
  return {};
}

/// Gives `name` in an open directory new content, which is written to `temporary` first. After an
/// error, a crash or a loss of power, `name` has the old content or the new one. Replaces a
/// `temporary` that an earlier crash has left. Blocks until the disk has the bytes. No other
/// process may write either name at the same time.
/// @param mode  of a new file, before the umask
/// @param fill  `(int fd) -> Result<void>`: writes the content
/// @error{an errno, as open(2)\, fsync(2) and renameat(2): ENOSPC on a full disk}
/// @error{as `fill`, as there}
template <class Fill>
[[nodiscard]] Result<void> replace_file_at(int directory, std::string const& name,
                                           std::string const& temporary, mode_t mode,
                                           Fill const& fill) {
  EROFS_OCI_TRY(remove_at(directory, temporary));
  UniqueFd const fd(::openat(directory, temporary.c_str(),
                             O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!fd) return fail_errno(errno, temporary);
  Result<void> ok = fill(fd.get());
  if (ok && ::fsync(fd.get()) != 0) ok = fail_errno(errno, "sync");
  ok = ok ? rename_at(directory, temporary, name) : fail(ok.error(), temporary);
  // The first error is the one to tell.
  if (!ok) static_cast<void>(remove_at(directory, temporary));
  return ok;
}

/// replace_file_at() for a path; `PATH.part` is the temporary file.
/// @error{as replace_file_at(), as there}
template <class Fill>
[[nodiscard]] Result<void> replace_file(std::string const& path, mode_t mode, Fill const& fill) {
  auto const name = path.substr(path.rfind('/') + 1);  // all of it without a slash: npos + 1 is 0
  EROFS_OCI_TRY_ASSIGN(auto const directory, open_read(folder_of(path), O_DIRECTORY));
  return replace_file_at(directory.get(), name, name + ".part", mode, fill);
}

}  // namespace erofs_oci
