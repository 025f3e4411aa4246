// SPDX-License-Identifier: Apache-2.0
#include "daemon_socket.hpp"

#include <cerrno>
#include <chrono>
#include <string>
#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <erofs_oci/posix/unix_socket.hpp>
#include <erofs_oci/posix/wait.hpp>

namespace mount_oci {
namespace {

Result<erofs_oci::UnixAddress> name_of(dev_t device) {
  return erofs_oci::UnixAddress::abstract("mount-oci/" + std::to_string(major(device)) + ':' +
                                          std::to_string(minor(device)));
}

UniqueFd make_socket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

}  // namespace

UniqueFd listen_as_daemon(dev_t device) {
  auto const name = name_of(device);
  auto fd = make_socket();
  if (!name || !fd) return {};
  // The kernel may use a device number again before the last process that served it has ended.
  auto bound = false;
  auto const done = [&] {
    bound = ::bind(fd.get(), name->get(), name->size()) == 0;
    return bound || errno != EADDRINUSE;
  };
  using namespace std::chrono_literals;
  if (!erofs_oci::wait_for(100ms, done, 2ms) || !bound) return {};
  // Connections are never accepted: they only have to end with this process.
  if (::listen(fd.get(), 64) != 0) return {};
  return fd;
}

DaemonWatch DaemonWatch::of(dev_t device) {
  auto const name = name_of(device);
  auto fd = make_socket();
  if (!name || !fd || ::connect(fd.get(), name->get(), name->size()) != 0) return DaemonWatch();
  ucred peer{};  // as of its listen(2)
  socklen_t length = sizeof peer;
  auto const known = ::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0;
  if (!known || (peer.uid != 0 && peer.uid != ::geteuid() && ::geteuid() != 0)) {
    return DaemonWatch();
  }
  // The process goes a moment later than its socket. Of another PID namespace it has no number.
  UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0)));
  return DaemonWatch(process ? std::move(process) : std::move(fd));
}

bool DaemonWatch::wait(std::chrono::milliseconds longest) const {
  if (!fd_) return true;
  pollfd event{fd_.get(), POLLIN, 0};
  return erofs_oci::poll_until({&event, 1}, std::chrono::steady_clock::now() + longest)
      .value_or(true);
}

}  // namespace mount_oci
