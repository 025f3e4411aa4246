// SPDX-License-Identifier: Apache-2.0
/// @file
/// SocketListen: NBD for network clients, on a unix socket or TCP.
#pragma once

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/negotiate.hpp>
#include <erofs_oci/nbd/wakeup.hpp>
#include <erofs_oci/posix/host_port.hpp>
#include <erofs_oci/posix/unix_socket.hpp>

namespace erofs_oci {

/// How SocketListen treats its clients.
struct ListenOptions {
  std::chrono::milliseconds handshake_timeout{30'000};  ///< for a client to pick the export
  /// How long a session waits for a client that takes no byte of a reply; 0: for ever.
  std::chrono::milliseconds send_timeout{60'000};
  /// Kernel's buffer for replies on a unix socket, in bytes; cut to what the system allows.
  int send_buffer = 1024 * 1024;
};

/// Accepts clients for NbdServer and does the handshake with them. Without TLS: only its owner can
/// connect to a unix socket, but every host that reaches the address to TCP.
///
/// @par Thread safety
/// negotiate(), uri() and port() from any thread.
class SocketListen {
 public:
  static constexpr bool listens = true;

  /// Listens at `path`, with mode 0600 from the start. Replaces a socket file on which no process
  /// listens. The destructor removes the file.
  /// @error{std::errc::address_in_use, a process listens there, or it is no socket}
  /// @error{std::errc::filename_too_long, the path has more than 107 bytes}
  /// @error{an errno, as bind(2)}
  [[nodiscard]] static Result<SocketListen> open_unix(std::string path,
                                                      ListenOptions options = {}) {
    EROFS_OCI_TRY_ASSIGN(auto fd, listen_unix(path, SOCK_STREAM, backlog), "nbd socket");
    auto bound = std::make_unique<SocketPath>(std::move(path));
    return make(std::move(fd), std::move(bound), {}, 0, options);
  }

  /// Listens at `host_port`: "host:port", "[v6 address]:port"; port 0 takes a free one, see port().
  /// The host must be given, so that serving all networks, "0.0.0.0:10809", is no accident.
  /// @error{Errc::invalid_argument, `host_port` is neither form}
  /// @error{an errno, as bind(2)}
  [[nodiscard]] static Result<SocketListen> open_tcp(std::string_view host_port,
                                                     ListenOptions options = {}) {
    EROFS_OCI_TRY_ASSIGN(auto const parsed, HostPort::parse(host_port), "nbd address");
    auto const port = std::to_string(parsed.port);
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    if (auto const code = ::getaddrinfo(parsed.host.c_str(), port.c_str(), &hints, &found);
        code != 0) {
      return fail(Errc::invalid_argument,
                  "nbd address " + std::string(host_port) + ": " + ::gai_strerror(code));
    }
    std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> const list(found, &::freeaddrinfo);
    Error last;
    for (auto const* entry = list.get(); entry != nullptr; entry = entry->ai_next) {
      auto bound = bind_tcp(*entry);
      if (bound) return make(std::move(bound->first), {}, parsed.host, bound->second, options);
      last = std::move(bound).error();
    }
    return fail(std::move(last), "nbd address " + std::string(host_port));
  }

  /// NbdConnect: waits for a client. Empty once `stop` is asked for.
  [[nodiscard]] Result<std::vector<UniqueFd>> attach(Export const&, std::stop_token stop) {
    std::stop_callback const wake(stop, [this] { wakeup_.notify(); });
    std::vector<UniqueFd> clients;
    while (!stop.stop_requested()) {
      std::array<pollfd, 2> fds{{{fd_.get(), POLLIN, 0}, {wakeup_.fd(), POLLIN, 0}}};
      if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) {
        return fail_errno(errno, "wait for nbd clients");
      }
      if (stop.stop_requested()) break;
      UniqueFd client(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (client) {
        tune(client.get());
        clients.push_back(std::move(client));
        return clients;
      }
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        // Other clients will leave; until then poll(2) would return at once, for ever.
        pollfd entry{wakeup_.fd(), POLLIN, 0};
        ::poll(&entry, 1, 100);
      } else if (errno == EBADF || errno == EINVAL || errno == ENOTSOCK || errno == EOPNOTSUPP) {
        return fail_errno(errno, "accept an nbd client");
      }  // any other error is of that one client
    }
    return clients;
  }

  /// NbdConnect: the fixed newstyle handshake.
  [[nodiscard]] Result<std::optional<Negotiated>> negotiate(int fd, Export const& served,
                                                            std::stop_token stop) const {
    auto result = nbd::negotiate(fd, served, std::move(stop), options_.handshake_timeout);
    if (result && *result) (*result)->send_timeout = options_.send_timeout;
    return result;
  }

  /// NbdConnect: does nothing; the server closes the clients' connections.
  void detach() noexcept {}

  /// What a client calls the export: nbd+unix:///NAME?socket=PATH or nbd://HOST:PORT/NAME.
  /// @spec{NBD uri.md}
  [[nodiscard]] std::string uri(std::string_view name = {}) const {
    auto const encoded = percent_encode(name, "-._~/");
    if (path_) {
      return "nbd+unix:///" + encoded + "?socket=" + percent_encode(path_->path(), "-._~/");
    }
    auto const host = host_.find(':') == host_.npos ? host_ : '[' + host_ + ']';
    return "nbd://" + host + ':' + std::to_string(port_) +
           (encoded.empty() ? std::string() : '/' + encoded);
  }

  /// The TCP port; 0 for a unix socket.
  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }

 private:
  static constexpr int backlog = 128;

  using Path = std::unique_ptr<SocketPath const>;

  SocketListen(UniqueFd fd, Path path, std::string host, std::uint16_t port, ListenOptions options,
               nbd::Wakeup wakeup) noexcept
      : fd_(std::move(fd)),
        path_(std::move(path)),
        host_(std::move(host)),
        port_(port),
        options_(options),
        wakeup_(std::move(wakeup)) {}

  static Result<SocketListen> make(UniqueFd fd, Path path, std::string host, std::uint16_t port,
                                   ListenOptions options) {
    EROFS_OCI_TRY_ASSIGN(auto wakeup, nbd::Wakeup::open());
    return SocketListen(std::move(fd), std::move(path), std::move(host), port, options,
                        std::move(wakeup));
  }

  static Result<std::pair<UniqueFd, std::uint16_t>> bind_tcp(addrinfo const& entry) {
    UniqueFd fd(::socket(entry.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return fail_errno(errno, "socket");
    int const on = 1;
    // Without it bind(2) would fail after a restart while the kernel still keeps old connections.
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(fd.get(), entry.ai_addr, entry.ai_addrlen) != 0) return fail_errno(errno, "bind");
    if (::listen(fd.get(), backlog) != 0) return fail_errno(errno, "listen");
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      return fail_errno(errno, "getsockname");
    }
    in_port_t port = 0;  // sin_port and sin6_port are at the same place
    std::memcpy(&port,
                reinterpret_cast<std::byte const*>(&address) + offsetof(sockaddr_in, sin_port),
                sizeof port);
    return std::pair(std::move(fd), ntohs(port));
  }

  /// Best effort: each of these only makes it faster, or a dead peer seen sooner.
  void tune(int client) const noexcept {
    int const on = 1;
    if (!path_) {
      ::setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      ::setsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
      return;
    }
    auto const size = options_.send_buffer;
    if (::setsockopt(client, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) != 0) {
      ::setsockopt(client, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    }
  }

  UniqueFd fd_;
  Path path_;  // null for TCP; after fd_: removed while still listening
  std::string host_;
  std::uint16_t port_;
  ListenOptions options_;
  nbd::Wakeup wakeup_;
};

static_assert(NbdConnect<SocketListen>);

}  // namespace erofs_oci
