// SPDX-License-Identifier: Apache-2.0
/// @file
/// SocketListen: NBD for network clients, on a unix socket or TCP.
#pragma once

#include <array>
#include <cerrno>
#include <charconv>
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
#include <system_error>
#include <utility>
#include <vector>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/negotiate.hpp>
#include <erofs_oci/nbd/wakeup.hpp>

namespace erofs_oci {

/// How SocketListen treats its clients.
struct ListenOptions {
  std::chrono::milliseconds handshake_timeout{30'000};  ///< for a client to pick the export
  /// How long a client that takes no byte of a reply is borne; 0: for ever.
  std::chrono::milliseconds send_timeout{60'000};
  /// Kernel's buffer for replies on a unix socket, in bytes; cut to what the system allows.
  int send_buffer = 1024 * 1024;
};

namespace detail {

/// A socket's name in a directory: removed at the end, if it is still the same socket.
class SocketPath {
 public:
  SocketPath() noexcept = default;
  SocketPath(std::string path, struct stat const& status) noexcept
      : path_(std::move(path)), device_(status.st_dev), inode_(status.st_ino) {}
  SocketPath(SocketPath&& other) noexcept
      : path_(std::exchange(other.path_, {})), device_(other.device_), inode_(other.inode_) {}
  SocketPath& operator=(SocketPath&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(device_, other.device_);
    std::swap(inode_, other.inode_);
    return *this;
  }

  ~SocketPath() {
    struct stat status{};
    if (path_.empty() || ::lstat(path_.c_str(), &status) != 0) return;
    if (status.st_dev == device_ && status.st_ino == inode_) ::unlink(path_.c_str());
  }

  [[nodiscard]] std::string const& path() const noexcept { return path_; }

 private:
  std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

/// A text as part of a URI.
[[nodiscard]] inline std::string percent_encoded(std::string_view text, std::string_view safe) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  std::string out;
  for (auto const c : text) {
    auto const alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (alnum || safe.find(c) != safe.npos) {
      out += c;
      continue;
    }
    auto const byte = static_cast<unsigned char>(c);
    out += '%';
    out += digits[byte >> 4];
    out += digits[byte & 15U];
  }
  return out;
}

}  // namespace detail

/// Accepts clients for NbdServer and shakes hands with them. Without TLS: a unix socket is for its
/// owner only, TCP for whoever reaches the address.
///
/// @par Thread safety
/// negotiate(), uri() and port() from any thread.
class SocketListen {
 public:
  static constexpr bool listens = true;

  /// Listens at `path`, with mode 0600 from the start. A socket file that nobody listens on is
  /// replaced. The file is removed at the end.
  /// @error{std::errc::address_in_use, somebody listens there, or it is no socket}
  /// @error{std::errc::filename_too_long, the path has more than 107 bytes}
  /// @error{an errno, as bind(2)}
  [[nodiscard]] static Result<SocketListen> open_unix(std::string path,
                                                      ListenOptions options = {}) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path) {
      return fail_errno(path.empty() ? EINVAL : ENAMETOOLONG, "nbd socket '" + path + "'");
    }
    std::memcpy(address.sun_path, path.data(), path.size());

    // Two servers that find the same stale file must not both replace it.
    auto const slash = path.rfind('/');
    auto const folder = slash == path.npos ? std::string(".") : path.substr(0, slash + 1);
    auto const lock = open_read(folder, O_DIRECTORY);
    if (!lock) return fail(lock.error(), "nbd socket " + path);
    if (::flock(lock->get(), LOCK_EX) != 0) return fail_errno(errno, "lock " + folder);

    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return fail_errno(errno, "nbd socket " + path);
    // The mode of the file to be: Linux takes it from the socket, so there is no moment without it.
    if (::fchmod(fd.get(), 0600) != 0) return fail_errno(errno, "mode of nbd socket " + path);
    auto bound = bind_unix(fd.get(), address);
    if (!bound) return fail(std::move(bound).error(), "nbd socket " + path);
    if (::listen(fd.get(), backlog) != 0) return fail_errno(errno, "listen on " + path);
    return make(std::move(fd), *std::move(bound), {}, 0, options);
  }

  /// Listens at `host_port`: "host:port", "[v6 address]:port"; port 0 takes a free one, see port().
  /// The host must be given, so that nobody serves the world by mistake: "0.0.0.0:10809".
  /// @error{Errc::invalid_argument, a host or port that cannot be understood}
  /// @error{an errno, as bind(2)}
  [[nodiscard]] static Result<SocketListen> open_tcp(std::string_view host_port,
                                                     ListenOptions options = {}) {
    auto const colon = host_port.rfind(':');
    auto host = std::string(host_port.substr(0, colon == host_port.npos ? 0 : colon));
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
      host = host.substr(1, host.size() - 2);
    } else if (host.empty() || host.find(':') != host.npos) {
      return fail(Errc::invalid_argument,
                  "nbd address '" + std::string(host_port) + "' is not HOST:PORT or [HOST]:PORT");
    }
    auto const port = std::string(host_port.substr(colon + 1));
    if (!is_port(port)) {
      return fail(Errc::invalid_argument,
                  "nbd address " + std::string(host_port) + ": the port is not in [0, 65535]");
    }
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    if (auto const code = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); code != 0) {
      return fail(Errc::invalid_argument,
                  "nbd address " + std::string(host_port) + ": " + ::gai_strerror(code));
    }
    std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> const list(found, &::freeaddrinfo);
    Error last;
    for (auto const* entry = list.get(); entry != nullptr; entry = entry->ai_next) {
      auto bound = bind_tcp(*entry);
      if (bound) return make(std::move(bound->first), {}, std::move(host), bound->second, options);
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
      }  // anything else befell that one client
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

  /// NbdConnect: nothing, clients see their connections end.
  void detach() noexcept {}

  /// What a client calls the export: nbd+unix:///NAME?socket=PATH or nbd://HOST:PORT/NAME.
  /// @spec{NBD uri.md}
  [[nodiscard]] std::string uri(std::string_view name = {}) const {
    auto const encoded = detail::percent_encoded(name, "-._~/");
    if (!path_.path().empty()) {
      return "nbd+unix:///" + encoded + "?socket=" + detail::percent_encoded(path_.path(), "-._~/");
    }
    auto const host = host_.find(':') == host_.npos ? host_ : '[' + host_ + ']';
    return "nbd://" + host + ':' + std::to_string(port_) +
           (encoded.empty() ? std::string() : '/' + encoded);
  }

  /// The TCP port; 0 for a unix socket.
  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }

 private:
  static constexpr int backlog = 128;

  SocketListen(UniqueFd fd, detail::SocketPath path, std::string host, std::uint16_t port,
               ListenOptions options, nbd::Wakeup wakeup) noexcept
      : fd_(std::move(fd)),
        path_(std::move(path)),
        host_(std::move(host)),
        port_(port),
        options_(options),
        wakeup_(std::move(wakeup)) {}

  static Result<SocketListen> make(UniqueFd fd, detail::SocketPath path, std::string host,
                                   std::uint16_t port, ListenOptions options) {
    auto wakeup = nbd::Wakeup::open();
    if (!wakeup) return fail(std::move(wakeup).error());
    return SocketListen(std::move(fd), std::move(path), std::move(host), port, options,
                        *std::move(wakeup));
  }

  static bool is_port(std::string_view text) noexcept {
    std::uint16_t value = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && end == text.data() + text.size();
  }

  static sockaddr const* generic(sockaddr_un const& address) noexcept {
    return reinterpret_cast<sockaddr const*>(&address);
  }

  static Result<detail::SocketPath> bind_unix(int fd, sockaddr_un const& address) {
    if (::bind(fd, generic(address), sizeof address) != 0) {
      if (errno != EADDRINUSE || !is_stale(address)) return fail_errno(errno, "bind");
      if (::unlink(address.sun_path) != 0) return fail_errno(errno, "remove the stale socket");
      if (::bind(fd, generic(address), sizeof address) != 0) return fail_errno(errno, "bind");
    }
    struct stat status{};
    if (::lstat(address.sun_path, &status) != 0) return fail_errno(errno, "stat");
    return detail::SocketPath(address.sun_path, status);
  }

  /// Whether it is a socket that nobody listens on. Leaves errno at EADDRINUSE if not.
  static bool is_stale(sockaddr_un const& address) noexcept {
    struct stat status{};
    auto const is_socket = ::lstat(address.sun_path, &status) == 0 && S_ISSOCK(status.st_mode);
    UniqueFd const probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    auto const refused = is_socket && probe &&
                         ::connect(probe.get(), generic(address), sizeof address) != 0 &&
                         errno == ECONNREFUSED;
    errno = EADDRINUSE;
    return refused;
  }

  static Result<std::pair<UniqueFd, std::uint16_t>> bind_tcp(addrinfo const& entry) {
    UniqueFd fd(::socket(entry.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return fail_errno(errno, "socket");
    int const on = 1;
    // Without it a restart would have to wait for old connections to be forgotten.
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
    if (path_.path().empty()) {
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
  detail::SocketPath path_;  // after fd_: removed while still listening
  std::string host_;
  std::uint16_t port_;
  ListenOptions options_;
  nbd::Wakeup wakeup_;
};

static_assert(NbdConnect<SocketListen>);

}  // namespace erofs_oci
