// SPDX-License-Identifier: Apache-2.0
/// @file
/// UnixAddress and listen_unix(): unix sockets in directories, and without one.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/path.hpp>

namespace erofs_oci {

/// The address of a unix socket.
class UnixAddress {
 public:
  /// @error{std::errc::filename_too_long, the path has more than 107 bytes}
  /// @error{std::errc::invalid_argument, it is empty}
  [[nodiscard]] static Result<UnixAddress> at(std::string const& path) {
    if (path.empty()) return fail_errno(EINVAL, "socket ''");
    if (path.size() >= sizeof(sockaddr_un::sun_path)) return fail_errno(ENAMETOOLONG, path);
    return UnixAddress(path, 0);
  }

  /// A name of the network namespace, which no directory holds.
  /// @error{std::errc::filename_too_long, it has more than 107 bytes}
  [[nodiscard]] static Result<UnixAddress> abstract(std::string_view name) {
    if (name.size() >= sizeof(sockaddr_un::sun_path)) {
      return fail_errno(ENAMETOOLONG, "socket name");
    }
    return UnixAddress(name, 1);
  }

  [[nodiscard]] sockaddr const* get() const noexcept {
    return reinterpret_cast<sockaddr const*>(&raw_);
  }
  [[nodiscard]] socklen_t size() const noexcept { return size_; }

 private:
  // A path has a NUL behind it, an abstract name one in front, at `begin` - 1.
  UnixAddress(std::string_view name, std::size_t begin) noexcept
      : size_(static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + 1)) {
    raw_.sun_family = AF_UNIX;
    std::ranges::copy(name, raw_.sun_path + begin);
  }

  sockaddr_un raw_{};
  socklen_t size_;
};

/// Whether listen_unix() replaces a socket at its path.
enum class OldSocket : std::uint8_t {
  replace_dead,  ///< replaced if no process listens on it
  replace,       ///< replaced; a process that listens on it gets no more clients
};

namespace detail {

/// Whether no process listens on the socket that is at an address.
[[nodiscard]] inline bool is_dead_socket(UnixAddress const& address) noexcept {
  UniqueFd const probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return probe && ::connect(probe.get(), address.get(), address.size()) != 0 &&
         errno == ECONNREFUSED;
}

/// Locks the directory of `path` against other calls of listen_unix(), so that two of them cannot
/// both replace the same dead socket. Blocks.
[[nodiscard]] inline Result<UniqueFd> lock_directory_of(std::string const& path) {
  auto const folder = folder_of(path);
  auto lock = open_read(folder, O_DIRECTORY);
  while (lock && ::flock(lock->get(), LOCK_EX) != 0) {
    if (errno != EINTR) return fail_errno(errno, "lock " + folder);
  }
  return lock;
}

}  // namespace detail

/// A listening socket at `path`, close-on-exec and non-blocking, for its owner only: its file has
/// mode 0600 from the start. Never replaces a file that is no socket.
/// @param type  SOCK_STREAM or SOCK_SEQPACKET
/// @error{std::errc::address_in_use, a process listens there, or it is no socket}
/// @error{as UnixAddress::at(), as there}
/// @error{an errno, as bind(2)}
[[nodiscard]] inline Result<UniqueFd> listen_unix(std::string const& path, int type, int backlog,
                                                  OldSocket old = OldSocket::replace_dead) {
  EROFS_OCI_TRY_ASSIGN(auto const address, UnixAddress::at(path));
  EROFS_OCI_TRY_ASSIGN(auto const lock, detail::lock_directory_of(path));
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, path);
  // Linux takes the file's mode from the socket, so there is no moment without it.
  if (::fchmod(fd.get(), 0600) != 0) return fail_errno(errno, path);
  struct stat status{};
  auto const is_socket = ::lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
  auto const replaced = is_socket && (old == OldSocket::replace || detail::is_dead_socket(address));
  if (replaced && ::unlink(path.c_str()) != 0) return fail_errno(errno, path);
  if (::bind(fd.get(), address.get(), address.size()) != 0) return fail_errno(errno, path);
  if (::listen(fd.get(), backlog) != 0) return fail_errno(errno, path);
  return fd;
}

/// A socket's name in a directory: removed at the end, if it is still the same socket.
class SocketPath {
 public:
  /// Of the socket that is there now.
  explicit SocketPath(std::string path) : path_(std::move(path)) {
    ::lstat(path_.c_str(), &status_);
  }
  SocketPath(SocketPath const&) = delete;
  SocketPath& operator=(SocketPath const&) = delete;

  ~SocketPath() {
    struct stat now{};
    if (::lstat(path_.c_str(), &now) != 0) return;
    if (now.st_dev == status_.st_dev && now.st_ino == status_.st_ino) ::unlink(path_.c_str());
  }

  [[nodiscard]] std::string const& path() const noexcept { return path_; }

 private:
  std::string path_;
  struct stat status_{};
};

}  // namespace erofs_oci
