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

Result<TargetDirectory> TargetDirectory::open(std::string const& path, Warn warn) {
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) return fail_errno(errno, path);
  UniqueFd root(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) return fail_errno(errno, path);
  return TargetDirectory(std::move(root), std::move(warn), ::geteuid() == 0);
}

/// Step by step: a symbolic link on the way is an error at any instant.
Result<UniqueFd> TargetDirectory::open_directory(std::string_view path) const {
  UniqueFd fd(::fcntl(root_.get(), F_DUPFD_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "/");
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
    auto fd = open_directory(directory);
    if (!fd) return fail(std::move(fd).error());
    last_ = *std::move(fd);
    last_path_ = directory;
  }
  return Parent{last_.get(), std::move(name)};
}

Result<void> TargetDirectory::clear_way(Parent const& parent, std::string const& path) const {
  if (::unlinkat(parent.fd, parent.name.c_str(), 0) == 0 || errno == ENOENT) return {};
  return fail_errno(errno, path + ": in the way");
}

Result<void> TargetDirectory::make_directory(std::string const& path) {
  if (path == "/") return {};
  auto const parent = parent_of(path);
  if (!parent) return fail(parent.error());
  auto const* const name = parent->name.c_str();
  if (::mkdirat(parent->fd, name, 0700) == 0) return {};
  if (errno != EEXIST) return fail_errno(errno, path);
  struct stat there{};
  if (::fstatat(parent->fd, name, &there, AT_SYMLINK_NOFOLLOW) != 0) return fail_errno(errno, path);
  if (S_ISDIR(there.st_mode)) return {};
  if (auto ok = clear_way(*parent, path); !ok) return ok;
  if (::mkdirat(parent->fd, name, 0700) != 0) return fail_errno(errno, path);
  return {};
}

Result<void> TargetDirectory::finish_directory(std::string const& path, Attributes const& with) {
  auto const fd = open_directory(path == "/" ? std::string_view() : path);
  if (!fd) return fail(fd.error());
  return set_attributes(fd->get(), path, with);
}

Result<void> TargetDirectory::make_file(std::string const& path, std::uint64_t size,
                                        FillFile const& fill, Attributes const& with) {
  auto const parent = parent_of(path);
  if (!parent) return fail(parent.error());
  auto const* const name = parent->name.c_str();
  auto const open = [&] {
    return UniqueFd(
        ::openat(parent->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  };
  auto fd = open();
  if (!fd && errno == EEXIST) {
    if (auto ok = clear_way(*parent, path); !ok) return ok;
    fd = open();
  }
  if (!fd) return fail_errno(errno, path);
  auto const write = [&](std::uint64_t offset, std::span<std::byte const> bytes) -> Result<void> {
    while (!bytes.empty()) {
      auto const n = ::pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "write");
      bytes = bytes.subspan(static_cast<std::size_t>(n));
      offset += static_cast<std::uint64_t>(n);
    }
    return {};
  };
  auto done = [&]() -> Result<void> {
    if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return fail_errno(errno, "size");
    if (auto ok = fill(write); !ok) return ok;
    return set_attributes(fd.get(), path, with);
  }();
  if (done) return {};
  ::unlinkat(parent->fd, name, 0);
  return fail(done.error(), path);
}

Result<void> TargetDirectory::make_symlink(std::string const& path, std::string const& target,
                                           Attributes const& with) {
  auto const parent = parent_of(path);
  if (!parent) return fail(parent.error());
  auto const make = [&] { return ::symlinkat(target.c_str(), parent->fd, parent->name.c_str()); };
  if (make() != 0) {
    if (errno != EEXIST) return fail_errno(errno, path);
    if (auto ok = clear_way(*parent, path); !ok) return ok;
    if (make() != 0) return fail_errno(errno, path);
  }
  return set_node_attributes(*parent, path, with);
}

Result<void> TargetDirectory::make_special(std::string const& path,
                                           erofs_oci::erofs::DeviceNumber device,
                                           Attributes const& with) {
  auto const parent = parent_of(path);
  if (!parent) return fail(parent.error());
  auto const type = static_cast<mode_t>(with.mode & S_IFMT);
  auto const make = [&] {
    return ::mknodat(parent->fd, parent->name.c_str(), type | 0600,
                     ::makedev(device.major, device.minor));
  };
  auto made = make() == 0;
  if (!made && errno == EEXIST) {
    if (auto ok = clear_way(*parent, path); !ok) return ok;
    made = make() == 0;
  }
  if (!made && errno == EPERM && !is_root_) {
    warn_(path + ": only root can make devices: left out");
    return {};
  }
  if (!made) return fail_errno(errno, path);
  return set_node_attributes(*parent, path, with);
}

Result<void> TargetDirectory::make_link(std::string const& path, std::string const& target) {
  auto const slash = target.rfind('/');
  auto const directory = open_directory(std::string_view(target).substr(0, slash));
  if (!directory) return fail(directory.error());
  auto const parent = parent_of(path);
  if (!parent) return fail(parent.error());
  auto const make = [&] {
    return ::linkat(directory->get(), target.c_str() + slash + 1, parent->fd, parent->name.c_str(),
                    0);
  };
  if (make() == 0) return {};
  if (errno == EEXIST) {
    if (auto ok = clear_way(*parent, path); !ok) return ok;
    if (make() == 0) return {};
  }
  if (errno == ENOENT && !is_root_) {  // a device that was left out
    warn_(path + ": its other name " + target + " is not there: left out");
    return {};
  }
  return fail_errno(errno, path);
}

Result<void> TargetDirectory::set_xattrs(std::string const& at, std::string const& path,
                                         Attributes const& with) const {
  for (auto const& [name, value] : with.xattrs) {
    if (::setxattr(at.c_str(), name.c_str(), value.data(), value.size(), 0) == 0) continue;
    if (errno != ENOTSUP && errno != EPERM) return fail_errno(errno, path + ": " + name);
    warn_(path + ": attribute " + name + " is refused here: left out");
  }
  return {};
}

Result<void> TargetDirectory::set_attributes(int fd, std::string const& path,
                                             Attributes const& with) const {
  if (is_root_ && ::fchown(fd, with.uid, with.gid) != 0) return fail_errno(errno, path + ": owner");
  if (auto ok = set_xattrs(path_of(fd), path, with); !ok) return ok;
  if (::fchmod(fd, permissions(with)) != 0) return fail_errno(errno, path + ": mode");
  if (::futimens(fd, times(with).data()) != 0) return fail_errno(errno, path + ": time");
  return {};
}

Result<void> TargetDirectory::set_node_attributes(Parent const& parent, std::string const& path,
                                                  Attributes const& with) const {
  auto const* const name = parent.name.c_str();
  UniqueFd const fd(::openat(parent.fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno(errno, path);
  if (is_root_ && ::fchownat(fd.get(), "", with.uid, with.gid, AT_EMPTY_PATH) != 0) {
    return fail_errno(errno, path + ": owner");
  }
  auto const at = path_of(fd.get());
  if (auto ok = set_xattrs(at, path, with); !ok) return ok;
  if (!S_ISLNK(with.mode) && ::chmod(at.c_str(), permissions(with)) != 0) {
    return fail_errno(errno, path + ": mode");
  }
  if (::utimensat(parent.fd, name, times(with).data(), AT_SYMLINK_NOFOLLOW) != 0) {
    return fail_errno(errno, path + ": time");
  }
  return {};
}

}  // namespace mount_oci
