// SPDX-License-Identifier: Apache-2.0
/// @file
/// How a connection of cpp-httplib is read: through a stream of ours where that can be, since old
/// versions limit neither a head nor the status line, which they match by recursion. Later versions
/// have limits of their own.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <httplib.h>
#include <openssl/ssl.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/http/proxy.hpp>
#include <erofs_oci/http/resolver.hpp>
#include <erofs_oci/http/watchdog.hpp>
#include <erofs_oci/posix/wait.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci::detail {

/// What one exchange may still do, and what stopped it. Outlives the connection's use of it.
struct ExchangeState {
  SteadyTime deadline{};
  std::chrono::milliseconds idle{};
  std::chrono::milliseconds connect{};
  std::size_t head_room = 0;  ///< bytes of the head that may still come
  bool head_done = false;
  bool too_large = false;       ///< head_room or a line's length ran out
  bool timed_out = false;       ///< `idle` or `deadline` passed
  bool any_byte = false;        ///< the server said something
  bool not_understood = false;  ///< there was more to read when cpp-httplib gave up
  std::optional<Error>
      refused{};  ///< why there is no connection, if cpp-httplib has no word for it
};

/// The bytes of one connection, for cpp-httplib: large reads from the socket, a limit on heads and
/// lines (cpp-httplib matches them with a recursive regular expression), and time limits.
template <class Base>
class ConnectionStream final : public Base {
 public:
  ConnectionStream(socket_t socket, SSL* ssl, std::vector<char>& buffer, ExchangeState& state)
      : socket_(socket), ssl_(ssl), buffer_(buffer), state_(state) {}

  bool is_readable() const override { return begin_ < end_ || wait(POLLIN); }
  bool is_writable() const override { return wait(POLLOUT); }

  ssize_t read(char* to, std::size_t size) override {
    if (begin_ == end_) {
      auto const n = fill();
      if (n <= 0) return n;
    }
    auto const n = std::min(size, end_ - begin_);
    if (!allowed(size, n)) return -1;
    std::memcpy(to, buffer_.data() + begin_, n);
    begin_ += n;
    return static_cast<ssize_t>(n);
  }

  ssize_t write(char const* from, std::size_t size) override {
    for (;;) {
      if (!wait(POLLOUT)) return -1;
      ssize_t n = 0;
      if (ssl_ != nullptr) {
        auto const most = std::min<std::size_t>(size, 1 << 20);
        n = SSL_write(ssl_, from, static_cast<int>(most));
        if (n <= 0 && wants_more(static_cast<int>(n))) continue;
      } else {
        n = ::send(socket_, from, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      }
      return n;
    }
  }

  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return socket_; }

 private:
  static constexpr std::size_t longest_first_line = 1024;
  static constexpr std::size_t longest_line = 8 * 1024;

  /// Lines are asked for byte by byte, bodies in larger pieces: that tells them apart.
  bool allowed(std::size_t asked, std::size_t n) {
    if (asked == 1 && buffer_[begin_] != '\n') {
      if (++line_ > (first_line_ ? longest_first_line : longest_line)) state_.too_large = true;
    } else {
      line_ = 0;
      first_line_ = false;
    }
    if (!state_.head_done) {
      if (n > state_.head_room) state_.too_large = true;
      state_.head_room -= std::min(n, state_.head_room);
    }
    return !state_.too_large;
  }

  bool wait(short events) const {
    if (ssl_ != nullptr && events == POLLIN && SSL_pending(ssl_) > 0) return true;
    auto const end = std::min(state_.deadline, std::chrono::steady_clock::now() + state_.idle);
    pollfd entry{socket_, events, 0};
    auto const ready = poll_until(std::span(&entry, 1), end);
    if (ready && !*ready) state_.timed_out = true;
    return ready.value_or(false);
  }

  /// Whether OpenSSL has to be called again once the socket is ready, for which it waits.
  bool wants_more(int result) {
    auto const why = SSL_get_error(ssl_, result);
    if (why == SSL_ERROR_WANT_READ) return wait(POLLIN);
    if (why == SSL_ERROR_WANT_WRITE) return wait(POLLOUT);
    return false;
  }

  ssize_t fill() {
    for (;;) {
      if (!wait(POLLIN)) return -1;
      ssize_t n = 0;
      if (ssl_ != nullptr) {
        n = SSL_read(ssl_, buffer_.data(), static_cast<int>(buffer_.size()));
        if (n <= 0 && wants_more(static_cast<int>(n))) continue;
        // Without a close_notify the end of the connection is not the end of the content.
        if (n <= 0)
          return SSL_get_error(ssl_, static_cast<int>(n)) == SSL_ERROR_ZERO_RETURN ? 0 : -1;
      } else {
        n = ::recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      }
      if (n <= 0) return n;
      state_.any_byte = true;
      begin_ = 0;
      end_ = static_cast<std::size_t>(n);
      return n;
    }
  }

  socket_t socket_;
  SSL* ssl_;
  std::vector<char>& buffer_;
  ExchangeState& state_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::size_t line_ = 0;
  bool first_line_ = true;
};

/// Whether a connection of such a client can be read through a stream of ours: in cpp-httplib 0.11
/// any, in 0.18 those without TLS, later none.
template <class Client, class Stream = httplib::Stream>
constexpr bool has_own_stream =
    !std::is_final_v<Client> && !requires(Stream const& stream) { stream.wait_readable(); };

/// Where a connection goes to.
struct Dial {
  std::vector<HostAddress> addresses{};  ///< tried in order, with their port
  std::string tunnel{};                  ///< what a proxy is asked for first: a CONNECT; or empty
};

/// Why a connection is not made: what the system says, if that is known.
[[nodiscard]] inline Error cannot_connect(int number = 0) {
  return erofs_oci::explain(
      Errc::unavailable,
      "cannot connect" + (number == 0 ? "" : ": " + std::system_category().message(number)));
}

/// Connects to the first address that takes a connection.
/// @param on_socket  called with each socket before it connects
/// @error{Errc::timed_out, not within ExchangeState::connect or by its deadline}
/// @error{Errc::unavailable, none takes one}
template <class OnSocket>
Result<UniqueFd> connect_to(Dial const& dial, ExchangeState const& state,
                            OnSocket const& on_socket) {
  Result<UniqueFd> out = fail(cannot_connect());
  for (auto const& to : dial.addresses) {
    UniqueFd fd(::socket(to.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) {
      out = fail(cannot_connect(errno));
      continue;
    }
    on_socket(fd.get());
    auto const end = std::min(state.deadline, std::chrono::steady_clock::now() + state.connect);
    auto const* const raw = reinterpret_cast<sockaddr const*>(&to.address);
    int error = ::connect(fd.get(), raw, to.length) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      pollfd entry{fd.get(), POLLOUT, 0};
      if (auto const ready = poll_until(std::span(&entry, 1), end); ready && !*ready) {
        out = fail(Errc::timed_out, "cannot connect in time");
        continue;
      }
      socklen_t size = sizeof error;
      if (::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    }
    if (error != 0) {
      out = fail(cannot_connect(error));
      continue;
    }
    int const on = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    timeval const idle{state.idle.count() / 1000, state.idle.count() % 1000 * 1000};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle);
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &idle, sizeof idle);
    ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) & ~O_NONBLOCK);
    return fd;
  }
  return out;
}

/// Why there is no tunnel: a proxy answered CONNECT by `status`.
[[nodiscard]] inline Error no_tunnel(std::string_view status) {
  return {status == "407" ? Errc::unauthorized : Errc::unavailable,
          "proxy: HTTP status " + std::string(status) + " to CONNECT"};
}

/// Asks a proxy for a tunnel. Its answer may have 16 KiB.
/// @error{Errc::unauthorized, it wants another login}
/// @error{Errc::protocol, its answer is no HTTP\, or too long}
/// @error{Errc::unavailable, it refuses\, or the connection broke}
/// @error{Errc::timed_out, no answer by ExchangeState::deadline\, or nothing within `idle`}
inline Result<void> open_tunnel(int socket, std::string_view request, ExchangeState const& state) {
  constexpr std::size_t longest = 16 * 1024;
  if (::send(socket, request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    return fail(Errc::unavailable, "proxy: the connection broke");
  }
  std::string answer;
  while (!answer.ends_with("\r\n\r\n")) {
    pollfd entry{socket, POLLIN, 0};
    auto const end = std::min(state.deadline, std::chrono::steady_clock::now() + state.idle);
    EROFS_OCI_TRY_ASSIGN(auto const ready, poll_until(std::span(&entry, 1), end), "proxy");
    if (!ready) return fail(Errc::timed_out, "proxy: no answer to CONNECT");
    char c = 0;  // no byte beyond the answer may be taken
    if (::recv(socket, &c, 1, MSG_DONTWAIT) != 1) {
      return fail(Errc::unavailable, "proxy: the connection broke");
    }
    answer += c;
    if (answer.size() > longest) return fail(Errc::protocol, "proxy: the answer is too long");
  }
  auto const status = std::string_view(answer).substr(0, 13);
  if (!status.starts_with("HTTP/1.") || status.size() < 13 || status[8] != ' ') {
    return fail(Errc::protocol, "proxy: the answer is not HTTP");
  }
  if (status[9] == '2') return {};
  return fail(no_tunnel(status.substr(9, 3)));
}

/// A cpp-httplib client whose connection is made here and read through ConnectionStream.
template <class Base, class Stream = httplib::Stream>
class ConnectionClient : public Base {
 public:
  template <class... Arguments>
  explicit ConnectionClient(ExchangeState& state, Arguments const&... arguments)
      : Base(arguments...), state_(state) {}

  Dial dial{};

 private:
  bool create_and_connect_socket(typename Base::Socket& socket, httplib::Error& error) override {
    auto fd = connect_to(dial, state_, [this](int one) {
      if (this->socket_options_) this->socket_options_(one);
    });
    if (!fd) state_.refused = std::move(fd).error();
    if (fd && !dial.tunnel.empty()) {
      if (auto ok = open_tunnel(fd->get(), dial.tunnel, state_); !ok) {
        state_.refused = std::move(ok).error();
      }
    }
    if (state_.refused) {
      error = httplib::Error::Connection;
      return false;
    }
    socket.sock = fd->release();
    return true;
  }

  bool process_socket(typename Base::Socket const& socket,
                      std::function<bool(Stream&)> callback) override {
    ConnectionStream<Stream> stream(socket.sock, socket.ssl, buffer_, state_);
    return callback(stream);
  }

  ExchangeState& state_;
  std::vector<char> buffer_ = std::vector<char>(128 * 1024);
};

/// Makes a `Client`, whose connection is read through ConnectionStream if that can be.
/// @param state  must outlive the client
template <class Client, class... Arguments>
std::unique_ptr<Client> make_client(ExchangeState& state, Url const& url, Dial dial,
                                    std::optional<Proxy> const& proxy,
                                    Arguments const&... arguments) {
  auto const tls = std::is_same_v<Client, httplib::SSLClient>;
  auto const first = dial.addresses.front().text();
  std::unique_ptr<Client> out;
  auto set_proxy = proxy.has_value();
  if constexpr (has_own_stream<Client>) {
    auto client =
        std::make_unique<ConnectionClient<Client>>(state, url.host, url.port, arguments...);
    client->dial = std::move(dial);
    set_proxy = set_proxy && !tls;  // the tunnel is ours
    out = std::move(client);
  } else {
    out = std::make_unique<Client>(url.host, url.port, arguments...);
    if (!proxy) out->set_hostname_addr_map({{url.host, first}});
  }
  if (set_proxy) {
    out->set_proxy(first, proxy->port);
    if (!proxy->username.empty()) out->set_proxy_basic_auth(proxy->username, proxy->password);
  }
  return out;
}

}  // namespace erofs_oci::detail
