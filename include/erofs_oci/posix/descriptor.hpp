// SPDX-License-Identifier: Apache-2.0
/// @file
/// duplicate() and socket_pair(): new descriptors, close-on-exec. close_all_but(): fewer of them.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// A second descriptor of the same open file, close-on-exec and never 0, 1 or 2.
/// @error{an errno, as fcntl(2)}
[[nodiscard]] inline Result<UniqueFd> duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) return fail_errno(errno, "duplicate descriptor " + std::to_string(fd));
  return copy;
}

/// Two connected unix sockets, close-on-exec.
/// @param type  SOCK_STREAM or SOCK_SEQPACKET; SOCK_NONBLOCK may be added
/// @error{an errno, as socketpair(2)}
[[nodiscard]] inline Result<std::pair<UniqueFd, UniqueFd>> socket_pair(int type = SOCK_STREAM) {
  std::array<int, 2> fds{};
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds.data()) != 0) {
    return fail_errno(errno, "socketpair");
  }
  return std::pair(UniqueFd(fds[0]), UniqueFd(fds[1]));
}

/// Closes all descriptors but the standard streams and those in `keep`. For a process that has just
/// been forked, before anything in it owns a descriptor.
inline void close_all_but(std::vector<int> keep) noexcept {
  std::ranges::sort(keep);
  auto first = static_cast<unsigned>(STDERR_FILENO + 1);
  for (auto const fd : keep) {
    auto const kept = static_cast<unsigned>(fd);
    if (fd < 0 || kept < first) continue;
    if (kept > first) ::close_range(first, kept - 1, 0);
    first = kept + 1;
  }
  ::close_range(first, ~0u, 0);
}

}  // namespace erofs_oci
