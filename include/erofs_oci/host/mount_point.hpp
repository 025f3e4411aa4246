// SPDX-License-Identifier: Apache-2.0
/// @file
/// MountPoint: a directory to mount at, opened once.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/host/privilege.hpp>
#include <erofs_oci/posix/path.hpp>
#include <erofs_oci/posix/text_file.hpp>

namespace erofs_oci {
namespace detail {

/// The target of an open symbolic link; an error for everything else, whose server is not asked.
[[nodiscard]] inline Result<std::string> link_target(int fd, char const* name) {
  std::string text(longest_path + 1, '\0');
  auto const n = ::readlinkat(fd, name, text.data(), text.size());
  if (n < 0) return fail_errno(errno, "readlink");
  text.resize(static_cast<std::size_t>(n));
  return text;
}

/// open_place() for a process that follows only links of one user.
/// @param owner  that user
[[nodiscard]] inline Result<UniqueFd> open_by_links_of(std::string const& path, uid_t owner) {
  UniqueFd at(::open(path.starts_with('/') ? "/" : ".", O_PATH | O_CLOEXEC));
  auto rest = path;
  for (int links = 0;;) {
    rest.erase(0, std::min(rest.find_first_not_of('/'), rest.size()));
    if (!at || rest.empty()) break;
    auto const part = rest.substr(0, rest.find('/'));
    rest.erase(0, part.size());
    // O_DIRECTORY has the kernel mount what automount(8) waits with. The last part may be such a
    // mount point itself.
    auto const last = rest.find_first_not_of('/') == rest.npos;
    auto const flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
    UniqueFd next(::openat(at.get(), part.c_str(), flags | (last ? 0 : O_DIRECTORY)));
    if (!next && errno == ENOTDIR && !last) {
      next = UniqueFd(::openat(at.get(), part.c_str(), flags));
    }
    if (!next) return fail_errno(errno, path);
    auto const target = link_target(next.get(), "");
    if (!target) {
      at = std::move(next);
      continue;
    }
    struct stat status{};
    if (::fstat(next.get(), &status) != 0) return fail_errno(errno, path);
    if (status.st_uid != owner) {
      return fail_errno(ELOOP, path + ": `" + part + "` is a symbolic link of user " +
                                   std::to_string(status.st_uid) +
                                   ", which could lead root elsewhere: name the directory itself");
    }
    if (++links > 40) return fail_errno(ELOOP, path);
    if (target->starts_with('/')) at = UniqueFd(::open("/", O_PATH | O_CLOEXEC));
    rest.insert(0, *target);
  }
  if (!at) return fail_errno(errno, path);
  return at;
}

}  // namespace detail

/// Opens what a path leads to, as O_PATH: the topmost mount there, whose file system is not asked
/// for anything. Root follows only symbolic links that are root's own: those of other users, who
/// own a directory on the way, could lead a mount over /etc.
/// @error{ELOOP, root, and a link of another user}
/// @error{an errno, as open(2)}
[[nodiscard]] inline Result<UniqueFd> open_place(std::string const& path) {
  if (path.empty()) return fail_errno(ENOENT, "an empty path");
  // In a user namespace of its own, root may no more than the user whose it is.
  if (::geteuid() == 0 && in_first_user_namespace()) return detail::open_by_links_of(path, 0);
  UniqueFd fd(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!fd) return fail_errno(errno, path);
  return fd;
}

/// The absolute path of what is open, without symbolic links.
/// @error{an errno, as readlink(2) of /proc/self/fd}
[[nodiscard]] inline Result<std::string> path_of(int fd) {
  return detail::link_target(AT_FDCWD, ("/proc/self/fd/" + std::to_string(fd)).c_str());
}

/// The number by which the kernel knows the mount that a descriptor is on, as in the first field of
/// /proc/self/mountinfo.
/// @error{an errno, as open(2) of /proc/self/fdinfo; Errc::protocol, there is none in it}
[[nodiscard]] inline Result<std::uint64_t> mount_id_of(int fd) {
  EROFS_OCI_TRY_ASSIGN(auto const text, read_text_file("/proc/self/fdinfo/" + std::to_string(fd)));
  constexpr std::string_view key = "mnt_id:\t";
  auto const at = text.find(key);
  auto const value = std::string_view(text).substr(std::min(at, text.size()));
  auto const id =
      at == text.npos
          ? std::nullopt
          : whole_number<std::uint64_t>(value.substr(key.size(), value.find('\n') - key.size()));
  if (!id) return fail(Errc::protocol, "/proc/self/fdinfo");
  return *id;
}

/// The same of the topmost mount at a path.
/// @error{as open_place() and mount_id_of()}
[[nodiscard]] inline Result<std::uint64_t> mount_id_at(std::string const& path) {
  EROFS_OCI_TRY_ASSIGN(auto const fd, open_place(path));
  return mount_id_of(fd.get());
}

/// Whether a mount of this mount namespace has that number, by mount_id_of(). If that cannot be
/// found out, it is taken to have.
[[nodiscard]] inline bool is_mounted(std::uint64_t mount) {
  constexpr std::size_t most = 64 * 1024 * 1024;  // bytes: one line a mount
  auto const table = read_text_file("/proc/self/mountinfo", most);
  if (!table) return true;
  auto const line = std::to_string(mount) + ' ';
  return table->starts_with(line) || table->find('\n' + line) != table->npos;
}

/// A directory to mount at. What is mounted through it is mounted there, wherever its path leads
/// meanwhile.
class MountPoint {
 public:
  /// Opens it by open_place().
  /// @error{std::errc::not_a_directory, it is none}
  /// @error{as open_place()}
  [[nodiscard]] static Result<MountPoint> open(std::string const& path) {
    EROFS_OCI_TRY_ASSIGN(auto fd, open_place(path));
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, path);
    if (!S_ISDIR(status.st_mode)) return fail_errno(ENOTDIR, path);
    // The /proc of another mount namespace may be of other processes.
    auto real = path_of(fd.get()).value_or(path);
    return MountPoint(std::move(fd), std::move(real));
  }

  /// Where it was when it was opened: absolute, without symbolic links; without /proc, as given.
  [[nodiscard]] std::string const& path() const noexcept { return path_; }

  /// What mount(2) takes in place of the path.
  [[nodiscard]] std::string place() const { return "/proc/self/fd/" + std::to_string(fd_.get()); }

  /// Attaches what fsmount(2) has given.
  /// @error{an errno, as move_mount(2)}
  [[nodiscard]] Result<void> attach(int mount) const {
    if (::move_mount(mount, "", fd_.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) !=
        0) {
      return fail_errno(errno, "mount at " + path_);
    }
    return {};
  }

 private:
  MountPoint(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  UniqueFd fd_;
  std::string path_;
};

}  // namespace erofs_oci
