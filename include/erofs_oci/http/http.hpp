// SPDX-License-Identifier: Apache-2.0
/// @file
/// HttplibTransport, and the concrete Http, OciBlob and Registry. If you include this file, you
/// link cpp-httplib and libssl.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>

#include <httplib.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/http/proxy.hpp>
#include <erofs_oci/http/watchdog.hpp>
#include <erofs_oci/oci/blob.hpp>
#include <erofs_oci/oci/registry.hpp>
#include <erofs_oci/source/http.hpp>
#include <erofs_oci/source/http_response.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {

/// How connections are made. Certificates are always verified.
struct HttplibOptions {
  std::string ca_file{};  ///< PEM; in place of the system's certificates. Default: the system's
  std::string ca_directory{};        ///< hashed, as OpenSSL wants it; in place of the system's
  std::string client_certificate{};  ///< PEM, with its key in `client_key`
  std::string client_key{};          ///< PEM
  Proxies proxies{};                 ///< Default: none; see Proxies::from_environment()
  std::string user_agent = "erofs_oci";
  std::size_t idle_connections = 16;  ///< kept for each scheme, host and port. Default: 16
};

namespace detail {

/// Milliseconds from now until `end`, for poll(2): at least 0, at most a day.
inline int poll_time(SteadyTime end) noexcept {
  auto const left =
      std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 24 * 3600 * 1000));
}

/// What one exchange may still do, and what stopped it. Outlives the connection's use of it.
struct ExchangeState {
  SteadyTime deadline{};
  std::chrono::milliseconds idle{};
  std::size_t head_room = 0;  ///< bytes of the head that may still come
  bool head_done = false;
  bool too_large = false;  ///< head_room or a line's length ran out
  bool timed_out = false;  ///< `idle` or `deadline` passed
  bool any_byte = false;   ///< the server said something
};

/// The bytes of one connection, for cpp-httplib: large reads from the socket, a limit on heads and
/// lines (cpp-httplib matches them with a recursive regular expression), and time limits.
class ConnectionStream final : public httplib::Stream {
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
    for (;;) {
      pollfd entry{socket_, events, 0};
      auto const n = ::poll(&entry, 1, poll_time(end));
      if (n > 0) return true;
      if (n < 0 && errno == EINTR) continue;
      if (n == 0) state_.timed_out = true;
      return false;
    }
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

/// A cpp-httplib client whose connection is read through ConnectionStream.
template <class Base>
class ConnectionClient final : public Base {
 public:
  using Base::Base;

  ExchangeState state;

 private:
  bool process_socket(httplib::ClientImpl::Socket const& socket,
                      std::function<bool(httplib::Stream&)> callback) override {
    ConnectionStream stream(socket.sock, socket.ssl, buffer_, state);
    return callback(stream);
  }

  std::vector<char> buffer_ = std::vector<char>(128 * 1024);
};

}  // namespace detail

/// HTTP/1.1 by cpp-httplib: a pool of kept connections, one exchange each at a time. Copies share
/// the pool, which ends with the last of them.
///
/// A connection that the server closed while it was idle is replaced without a word. Every
/// exchange ends by its deadline, however slowly the server speaks; only the look-up of a host's
/// name takes what the system's resolver takes.
///
/// Measured with -O2 on 2 busy cores over loopback: a body of 64 MiB from nginx at 750 MB/s, with
/// TLS at 440 MB/s; a read of 4 KiB in 0.1 ms.
///
/// @par Thread safety
/// exchange(), from any thread, several at once.
class HttplibTransport {
 public:
  /// Makes no connection.
  explicit HttplibTransport(HttplibOptions options = {})
      : pool_(std::make_shared<Pool>(std::move(options))) {}

  /// HttpTransport.
  [[nodiscard]] Result<void> exchange(HttpRequest const& request, HttpHeadSink head,
                                      ByteSink body) const {
    auto connection = pool_->take(request.url);
    if (!connection) return fail(std::move(connection).error());
    Attempt first(request, head, body);
    auto done = first.run(**connection, *pool_);
    if (first.stale && request.method != HttpMethod::post) {
      auto fresh = pool_->make(request.url);
      if (!fresh) return fail(std::move(fresh).error());
      connection = std::move(fresh);
      Attempt second(request, head, body);
      done = second.run(**connection, *pool_);
    }
    if (done) pool_->give_back(request.url, *std::move(connection));
    return done;
  }

 private:
  /// One client, and a duplicate of its socket.
  struct Connection {
    Connection() = default;
    Connection(Connection const&) = delete;
    Connection& operator=(Connection const&) = delete;

    ~Connection() {
      detail::NoSigpipe const guard;  // TLS says goodbye to a peer that may be gone
      client.reset();
    }

    std::unique_ptr<httplib::ClientImpl> client;
    detail::ExchangeState* state = nullptr;  // inside the client
    httplib::SSLClient const* tls = nullptr;
    UniqueFd socket{};
  };

  class Pool {
   public:
    explicit Pool(HttplibOptions options) : options_(std::move(options)) {}

    /// An idle connection, the last one used first, or a new one.
    Result<std::unique_ptr<Connection>> take(Url const& url) {
      {
        std::lock_guard const lock(mutex_);
        auto const idle = idle_.find(key(url));
        if (idle != idle_.end() && !idle->second.empty()) {
          auto out = std::move(idle->second.back());
          idle->second.pop_back();
          return out;
        }
      }
      return make(url);
    }

    Result<std::unique_ptr<Connection>> make(Url const& url);

    void give_back(Url const& url, std::unique_ptr<Connection> connection) {
      if (connection->client->is_socket_open() == 0) return;
      std::lock_guard const lock(mutex_);
      auto& idle = idle_[key(url)];
      if (idle.size() < options_.idle_connections) idle.push_back(std::move(connection));
    }

    detail::Watchdog watchdog;

    [[nodiscard]] HttplibOptions const& options() const noexcept { return options_; }

   private:
    static std::string key(Url const& url) { return url.scheme + "://" + url.authority(); }

    HttplibOptions options_;
    std::mutex mutex_;
    std::map<std::string, std::vector<std::unique_ptr<Connection>>> idle_;
  };

  /// One exchange on one connection.
  struct Attempt {
    Attempt(HttpRequest const& r, HttpHeadSink h, ByteSink b) : request(r), head(h), body(b) {}

    Result<void> run(Connection& connection, Pool& pool);

    HttpRequest const& request;
    HttpHeadSink head;
    ByteSink body;
    bool stale = false;  // the connection had been closed before the request came

   private:
    void prepare(Connection& connection) const;
    [[nodiscard]] httplib::Request message(Pool const& pool) const;
    [[nodiscard]] bool on_head(httplib::Response const& response, detail::ExchangeState& state);
    [[nodiscard]] bool on_body(char const* data, std::size_t size);
    [[nodiscard]] Error explain(httplib::Error error, Connection const& connection,
                                bool time_over) const;

    std::optional<Error> refused_;
    bool ended_ = false;  // by a sink, which is a success
    bool head_seen_ = false;
    std::uint64_t received_ = 0;
  };

  std::shared_ptr<Pool> pool_;
};

static_assert(HttpTransport<HttplibTransport>);

/// A source over one URL: `Http::open("http://host/file")`.
using Http = BasicHttp<HttplibTransport>;

/// A source over one blob of a registry.
using OciBlob = BasicOciBlob<HttplibTransport>;

/// One repository of a registry.
using Registry = BasicRegistry<HttplibTransport>;

inline auto HttplibTransport::Pool::make(Url const& url) -> Result<std::unique_ptr<Connection>> {
  auto connection = std::make_unique<Connection>();
  if (url.is_secure()) {
    auto client = std::make_unique<detail::ConnectionClient<httplib::SSLClient>>(
        url.host, url.port, options_.client_certificate, options_.client_key);
    if (!client->is_valid()) {
      return fail(Errc::invalid_argument, "TLS: the client certificate or its key cannot be used");
    }
    client->set_ca_cert_path(options_.ca_file, options_.ca_directory);
    client->enable_server_certificate_verification(true);
    connection->state = &client->state;
    connection->tls = client.get();
    connection->client = std::move(client);
  } else {
    auto client =
        std::make_unique<detail::ConnectionClient<httplib::ClientImpl>>(url.host, url.port);
    connection->state = &client->state;
    connection->client = std::move(client);
  }
  auto& client = *connection->client;
  client.set_keep_alive(true);
  client.set_url_encode(false);
  client.set_decompress(false);
  client.set_follow_location(false);
  client.set_tcp_nodelay(true);
  if (auto const proxy = options_.proxies.choose(url)) {
    client.set_proxy(proxy->host, proxy->port);
    if (!proxy->username.empty()) client.set_proxy_basic_auth(proxy->username, proxy->password);
  }
  return connection;
}

inline void HttplibTransport::Attempt::prepare(Connection& connection) const {
  auto& state = *connection.state;
  state = {};
  state.deadline = request.deadline;
  state.idle = request.limits.idle;
  state.head_room = request.limits.header;
  auto const left = std::chrono::ceil<std::chrono::milliseconds>(request.deadline -
                                                                 std::chrono::steady_clock::now());
  auto const connect =
      std::max(std::min(request.limits.connect, left), std::chrono::milliseconds(1));
  auto const idle = std::max(std::min(request.limits.idle, left), std::chrono::milliseconds(1));
  connection.client->set_connection_timeout(connect);
  connection.client->set_read_timeout(idle);
  connection.client->set_write_timeout(idle);
}

inline httplib::Request HttplibTransport::Attempt::message(Pool const& pool) const {
  httplib::Request out;
  out.method = to_string(request.method);
  out.path = request.url.target;
  out.headers.emplace("User-Agent", pool.options().user_agent);
  for (auto const& [name, value] : request.headers) out.headers.emplace(name, value);
  out.body = request.body;
  return out;
}

inline bool HttplibTransport::Attempt::on_head(httplib::Response const& response,
                                               detail::ExchangeState& state) {
  state.head_done = true;
  head_seen_ = true;
  HttpHead out{response.status, {}};
  std::optional<std::string_view> length;
  for (auto const& [name, value] : response.headers) {
    if (equal_ignoring_case(name, "Content-Length")) {
      // cpp-httplib reads it with strtoull, and two of them by luck.
      if (!parse_number(value) || (length && *length != value)) {
        refused_ = Error{Errc::protocol, "Content-Length makes no sense"};
        return false;
      }
      length = value;
    }
    out.headers.push_back({name, value});
  }
  ended_ = !head(out);
  return !ended_;
}

inline bool HttplibTransport::Attempt::on_body(char const* data, std::size_t size) {
  if (size > request.limits.body - received_) {
    refused_ = Error{Errc::protocol,
                     "the body is longer than " + std::to_string(request.limits.body) + " bytes"};
    return false;
  }
  received_ += size;
  ended_ = !body(std::as_bytes(std::span(data, size)));
  return !ended_;
}

inline Result<void> HttplibTransport::Attempt::run(Connection& connection, Pool& pool) {
  if (std::chrono::steady_clock::now() >= request.deadline) {
    return fail(Errc::timed_out, "no time left for a request");
  }
  prepare(connection);
  auto& state = *connection.state;
  auto const reused = connection.client->is_socket_open() != 0;
  detail::Watch watch(pool.watchdog, request.deadline, std::move(connection.socket));
  connection.client->set_socket_options([&](socket_t socket) { watch.set_socket(socket); });

  auto out = message(pool);
  out.response_handler = [&](httplib::Response const& r) { return on_head(r, state); };
  out.content_receiver = [&](char const* data, std::size_t size, std::uint64_t, std::uint64_t) {
    return on_body(data, size);
  };
  httplib::Response response;
  auto error = httplib::Error::Success;
  ERR_clear_error();
  detail::NoSigpipe const guard;
  auto const ok = connection.client->send(out, response, error);

  bool time_over = false;
  std::tie(connection.socket, time_over) = watch.end();
  connection.client->set_socket_options(nullptr);
  if (ok || ended_) return {};
  if (refused_) return fail(*refused_);
  time_over = time_over || std::chrono::steady_clock::now() >= request.deadline;
  stale = reused && !state.any_byte && !time_over && !state.timed_out;
  return fail(explain(error, connection, time_over));
}

inline Error HttplibTransport::Attempt::explain(httplib::Error error, Connection const& connection,
                                                bool time_over) const {
  using Kind = httplib::Error;
  auto const& state = *connection.state;
  if (state.too_large) return {Errc::protocol, "the head of the response is too large"};
  if (time_over) return {Errc::timed_out, "the request's time is over"};
  if (state.timed_out) {
    return {Errc::timed_out,
            "nothing came for " + std::to_string(state.idle.count()) + " milliseconds"};
  }
  auto const tls_reason = [] {
    auto const code = ERR_peek_last_error();
    auto const* const reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
    return std::string(reason != nullptr ? reason : "");
  };
  switch (error) {
    case Kind::Connection: return {Errc::unavailable, "cannot connect"};
    case Kind::ConnectionTimeout: return {Errc::timed_out, "cannot connect in time"};
    case Kind::SSLLoadingCerts: return {Errc::protocol, "TLS: cannot load the CA certificates"};
    case Kind::SSLServerVerification: {
      auto const result =
          connection.tls != nullptr ? connection.tls->get_openssl_verify_result() : 0;
      return {Errc::protocol, std::string("TLS: the server's certificate is not to be trusted: ") +
                                  (result != X509_V_OK ? X509_verify_cert_error_string(result)
                                                       : "it is for another host")};
    }
    case Kind::SSLConnection: {
      auto const reason = tls_reason();
      auto const broke = reason.empty() || reason.find("unexpected eof") != std::string::npos;
      return {broke ? Errc::unavailable : Errc::protocol,
              "TLS: no connection" + (reason.empty() ? "" : ": " + reason)};
    }
    default: break;
  }
  if (!head_seen_ && state.any_byte) return {Errc::protocol, "the answer is not HTTP"};
  return {Errc::unavailable,
          head_seen_ ? "the connection broke after " + std::to_string(received_) + " bytes"
                     : "the connection broke before an answer"};
}

}  // namespace erofs_oci
