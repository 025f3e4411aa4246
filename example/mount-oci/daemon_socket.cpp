// SPDX-License-Identifier: Apache-2.0
#include "daemon_socket.hpp"

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <string>
#include <thread>
#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

namespace mount_oci {
namespace {

struct Name {
  sockaddr_un address{};
  socklen_t length = 0;

  explicit Name(dev_t device) {
    auto const text =
        "mount-oci/" + std::to_string(major(device)) + ':' + std::to_string(minor(device));
    address.sun_family = AF_UNIX;
    text.copy(address.sun_path + 1, sizeof address.sun_path - 1);  // behind a NUL: abstract
    length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  }

  [[nodiscard]] sockaddr const* get() const noexcept {
    return reinterpret_cast<sockaddr const*>(&address);
  }
};

UniqueFd make_socket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

}  // namespace

DaemonSocket DaemonSocket::listen(dev_t device) {
  Name const name(device);
  auto fd = make_socket();
  if (!fd) return {};
  // The kernel gives a device number away again before its last daemon has quite ended.
  constexpr int tries = 50;
  for (int i = 1; ::bind(fd.get(), name.get(), name.length) != 0; ++i) {
    if (errno != EADDRINUSE || i == tries) return {};
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  // Connections are never accepted: that they end when we do is all that they are for.
  if (::listen(fd.get(), 64) != 0) return {};
  return DaemonSocket(std::move(fd));
}

DaemonWatch DaemonWatch::of(dev_t device) {
  Name const name(device);
  auto fd = make_socket();
  if (!fd || ::connect(fd.get(), name.get(), name.length) != 0) return DaemonWatch(UniqueFd());
  ucred peer{};  // as of its listen(2)
  socklen_t length = sizeof peer;
  auto const known = ::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0;
  if (!known || (peer.uid != 0 && peer.uid != ::geteuid() && ::geteuid() != 0)) {
    return DaemonWatch(UniqueFd());
  }
  // The process goes a moment later than its socket. Of another PID namespace it has no number.
  UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0)));
  return DaemonWatch(process ? std::move(process) : std::move(fd));
}

bool DaemonWatch::wait(std::chrono::milliseconds longest) const {
  if (!fd_) return true;
  pollfd event{fd_.get(), POLLIN, 0};
  return ::poll(&event, 1, static_cast<int>(longest.count())) != 0;
}

}  // namespace mount_oci
