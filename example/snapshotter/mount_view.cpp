// SPDX-License-Identifier: Apache-2.0
#include "mount_view.hpp"

#include <cerrno>
#include <fstream>
#include <sstream>

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace oci_snapshotter {

using erofs_oci::Errc;
using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::Result;

namespace {

/// Whether a process has a file system mounted.
/// @param device  "major:minor", which no other file system has while this one is mounted
/// @spec{proc(5), /proc/pid/mountinfo: number, parent, major:minor}
Result<bool> process_sees(pid_t process, std::string const& device) {
  auto const path = "/proc/" + std::to_string(process) + "/mountinfo";
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::string number;
    std::string parent;
    std::string found;
    if (fields >> number >> parent >> found && found == device) return true;
  }
  if (!file.eof()) return fail_errno(EIO, path);
  return false;
}

/// Looks for what is mounted at a directory.
Result<void> look_for(std::string const& directory, pid_t process) {
  struct stat about{};
  if (::stat(directory.c_str(), &about) != 0) return fail_errno(errno, directory);
  auto const device =
      std::to_string(::major(about.st_dev)) + ":" + std::to_string(::minor(about.st_dev));
  EROFS_OCI_TRY_ASSIGN(auto const seen, process_sees(process, device));
  if (seen) return {};
  return tl::unexpected(
      erofs_oci::explain(Errc::unavailable, "process " + std::to_string(process) +
                                                " does not see what is mounted at " + directory +
                                                ", so containerd would find an empty directory"));
}

}  // namespace

Result<void> check_mounts_are_seen(std::string const& directory, pid_t process) {
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, directory);
  Result<void> seen;
  if (::mount("tmpfs", directory.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=64k") == 0) {
    seen = look_for(directory, process);
  } else {
    seen = fail_errno(errno, "mount " + directory);
  }
  // Also what a process has left that was killed here.
  while (::umount2(directory.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {}
  ::rmdir(directory.c_str());
  return seen;
}

}  // namespace oci_snapshotter
