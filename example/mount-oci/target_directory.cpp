// SPDX-License-Identifier: Apache-2.0
#include "target_directory.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <erofs_oci/posix/descriptor.hpp>

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;

/// A path by which the kernel finds an open file again, whatever it is.
std::string path_of(int fd) {
  return "/proc/self/fd/" + std::to_string(fd);
}

std::array<timespec, 2> times(Attributes const& with) {
  timespec const time{static_cast<time_t>(with.mtime.seconds),
                      static_cast<long>(with.mtime.nanoseconds)};
  return {time, time};
}

}  // namespace

Result<TargetDirectory> TargetDirectory::open(std::string const& path, Warn warn, bool safe) {
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) return fail_errno(errno, path);
  EROFS_OCI_TRY_ASSIGN(auto root, erofs_oci::open_read(path, O_DIRECTORY));
  return TargetDirectory(std::move(root), std::move(warn), ::geteuid() == 0, safe);
}

/// Step by step: a symbolic link on the way is an error at any instant.
Result<UniqueFd> TargetDirectory::open_directory(std::string_view path) const {
  EROFS_OCI_TRY_ASSIGN(auto fd, erofs_oci::duplicate(root_.get()));
  for (auto rest = path; !rest.empty();) {
    rest.remove_prefix(1);  // the slash
    auto const slash = std::min(rest.find('/'), rest.size());
    std::string const name(rest.substr(0, slash));
    if (!name.empty()) {
      fd = UniqueFd(
          ::openat(fd.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!fd) return fail_errno(errno, std::string(path));
    }
    rest.remove_prefix(slash);
  }
  return fd;
}

Result<TargetDirectory::Parent> TargetDirectory::parent_of(std::string const& path) {
  auto const slash = path.rfind('/');
  auto const directory = path.substr(0, slash);
  auto name = path.substr(slash + 1);
  if (name.empty() || name == "." || name == "..") {
    return fail(Errc::corrupt, path + ": not the name of a file");
  }
  if (!last_ || last_path_ != directory) {
    EROFS_OCI_TRY_ASSIGN(last_, open_directory(directory));
    last_path_ = directory;
  }
  return Parent{last_.get(), std::move(name)};
}

Result<void> TargetDirectory::clear_way(Parent const& parent, std::string const& path) const {
  if (::unlinkat(parent.fd, parent.name.c_str(), 0) == 0 || errno == ENOENT) return {};
  return fail_errno(errno, path + ": cannot be replaced");
}

template <class Make>
Result<int> TargetDirectory::make_anew(Parent const& parent, std::string const& path,
                                       Make const& make) const {
  if (make() == 0) return 0;
  if (errno != EEXIST) return errno;
  EROFS_OCI_TRY(clear_way(parent, path));
  return make() == 0 ? 0 : errno;
}

Result<void> TargetDirectory::make_directory(std::string const& path) {
  if (path == "/") return {};
  EROFS_OCI_TRY_ASSIGN(auto const parent, parent_of(path));
  auto const* const name = parent.name.c_str();
  if (::mkdirat(parent.fd, name, 0700) == 0) return {};
  if (errno != EEXIST) return fail_errno(errno, path);
  struct stat there{};
  if (::fstatat(parent.fd, name, &there, AT_SYMLINK_NOFOLLOW) != 0) return fail_errno(errno, path);
  if (S_ISDIR(there.st_mode)) return {};
  EROFS_OCI_TRY(clear_way(parent, path));
  if (::mkdirat(parent.fd, name, 0700) != 0) return fail_errno(errno, path);
  return {};
}

Result<void> TargetDirectory::finish_directory(std::string const& path, Attributes const& with) {
  EROFS_OCI_TRY_ASSIGN(auto const fd, open_directory(path == "/" ? std::string_view() : path));
  return set_attributes(fd.get(), path, with);
}

Result<void> TargetDirectory::make_file(std::string const& path, std::uint64_t size,
                                        FillFile const& fill, Attributes const& with) {
  EROFS_OCI_TRY_ASSIGN(auto const parent, parent_of(path));
  auto const* const name = parent.name.c_str();
  UniqueFd fd;
  auto const make = [&] {
    fd = UniqueFd(
        ::openat(parent.fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    return fd ? 0 : -1;
  };
  EROFS_OCI_TRY_ASSIGN(auto const problem, make_anew(parent, path, make));
  if (problem != 0) return fail_errno(problem, path);
  auto const write = [&](std::uint64_t offset, std::span<std::byte const> bytes) {
    return erofs_oci::pwrite_full(fd.get(), offset, bytes);
  };
  auto done = [&]() -> Result<void> {
    if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return fail_errno(errno, "size");
    EROFS_OCI_TRY(fill(write));
    return set_attributes(fd.get(), path, with);
  }();
  if (done) return {};
  ::unlinkat(parent.fd, name, 0);
  return fail(done.error(), path);
}

Result<void> TargetDirectory::make_symlink(std::string const& path, std::string const& target,
                                           Attributes const& with) {
  EROFS_OCI_TRY_ASSIGN(auto const parent, parent_of(path));
  auto const make = [&] { return ::symlinkat(target.c_str(), parent.fd, parent.name.c_str()); };
  EROFS_OCI_TRY_ASSIGN(auto const problem, make_anew(parent, path, make));
  if (problem != 0) return fail_errno(problem, path);
  return set_node_attributes(parent, path, with);
}

Result<void> TargetDirectory::make_special(std::string const& path,
                                           erofs_oci::erofs::DeviceNumber device,
                                           Attributes const& with) {
  EROFS_OCI_TRY_ASSIGN(auto const parent, parent_of(path));
  auto const type = static_cast<mode_t>(with.mode & S_IFMT);
  if (safe_ && (S_ISBLK(type) || S_ISCHR(type))) {
    warn_(path + ": a device: left out");
    return {};
  }
  auto const make = [&] {
    return ::mknodat(parent.fd, parent.name.c_str(), type | 0600,
                     ::makedev(device.major, device.minor));
  };
  EROFS_OCI_TRY_ASSIGN(auto const problem, make_anew(parent, path, make));
  if (problem == EPERM && !is_root_) {
    warn_(path + ": only root can make devices: left out");
    return {};
  }
  if (problem != 0) return fail_errno(problem, path);
  return set_node_attributes(parent, path, with);
}

Result<void> TargetDirectory::make_link(std::string const& path, std::string const& target) {
  auto const slash = target.rfind('/');
  EROFS_OCI_TRY_ASSIGN(auto const directory,
                       open_directory(std::string_view(target).substr(0, slash)));
  EROFS_OCI_TRY_ASSIGN(auto const parent, parent_of(path));
  auto const make = [&] {
    return ::linkat(directory.get(), target.c_str() + slash + 1, parent.fd, parent.name.c_str(), 0);
  };
  EROFS_OCI_TRY_ASSIGN(auto const problem, make_anew(parent, path, make));
  if (problem == 0) return {};
  if (problem != ENOENT || (is_root_ && !safe_)) return fail_errno(problem, path);
  // A device that was left out.
  warn_(path + ": a hard link to " + target + ", which does not exist: left out");
  return {};
}

Result<void> TargetDirectory::set_xattrs(std::string const& at, std::string const& path,
                                         Attributes const& with) const {
  for (auto const& [name, value] : with.xattrs) {
    if (safe_ && (name.starts_with("security.") || name.starts_with("trusted."))) continue;
    if (::setxattr(at.c_str(), name.c_str(), value.data(), value.size(), 0) == 0) continue;
    if (errno != ENOTSUP && errno != EPERM) return fail_errno(errno, path + ": " + name);
    warn_(path + ": the file system refuses attribute " + name + ": left out");
  }
  return {};
}

Result<void> TargetDirectory::set_attributes(int fd, std::string const& path,
                                             Attributes const& with) const {
  if (is_root_ && ::fchown(fd, with.uid, with.gid) != 0) return fail_errno(errno, path + ": owner");
  EROFS_OCI_TRY(set_xattrs(path_of(fd), path, with));
  if (::fchmod(fd, permissions(with)) != 0) return fail_errno(errno, path + ": mode");
  if (::futimens(fd, times(with).data()) != 0) return fail_errno(errno, path + ": time");
  return {};
}

Result<void> TargetDirectory::set_node_attributes(Parent const& parent, std::string const& path,
                                                  Attributes const& with) const {
  auto const* const name = parent.name.c_str();
  UniqueFd const fd(::openat(parent.fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat made{};
  if (!fd || ::fstat(fd.get(), &made) != 0) return fail_errno(errno, path);
  // Whoever owns the directory may have put a link to another file in the node's place.
  if ((made.st_mode & S_IFMT) != (with.mode & S_IFMT) || made.st_nlink != 1 ||
      made.st_uid != ::geteuid()) {
    return fail_errno(EEXIST, path + ": replaced by another process");
  }
  if (is_root_ && ::fchownat(fd.get(), "", with.uid, with.gid, AT_EMPTY_PATH) != 0) {
    return fail_errno(errno, path + ": owner");
  }
  auto const at = path_of(fd.get());
  EROFS_OCI_TRY(set_xattrs(at, path, with));
  if (!S_ISLNK(with.mode) && ::chmod(at.c_str(), permissions(with)) != 0) {
    return fail_errno(errno, path + ": mode");
  }
  if (::utimensat(AT_FDCWD, at.c_str(), times(with).data(), 0) != 0) {
    return fail_errno(errno, path + ": time");
  }
  return {};
}

}  // namespace mount_oci
