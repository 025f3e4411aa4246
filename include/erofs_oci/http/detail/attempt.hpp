// SPDX-License-Identifier: Apache-2.0
/// @file
/// One HTTP exchange on one connection, and what its failure means.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>

#include <httplib.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/http/detail/connection_pool.hpp>
#include <erofs_oci/http/detail/connection_stream.hpp>
#include <erofs_oci/http/tcp_info.hpp>
#include <erofs_oci/http/watchdog.hpp>
#include <erofs_oci/source/http_response.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci::detail {

/// Whether the server's certificate was refused. Later versions have a code for the host's name.
template <class Kind>
constexpr bool is_distrust(Kind error) noexcept {
  if constexpr (requires { Kind::SSLServerHostnameVerification; }) {
    if (error == Kind::SSLServerHostnameVerification) return true;
  }
  return error == Kind::SSLServerVerification;
}

/// What OpenSSL says about the certificate of the last connection, or nothing.
template <class Client>
std::string certificate_reason(Client const& client) {
  long result = X509_V_OK;
  if constexpr (requires { client.get_openssl_verify_result(); }) {
    result = client.get_openssl_verify_result();
  } else if constexpr (requires { client.get_verify_result(); }) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    result = client.get_verify_result();  // later versions tell only those who use httplib::Result
#pragma GCC diagnostic pop
  }
  auto const other_host = result == X509_V_OK || result == X509_V_ERR_HOSTNAME_MISMATCH ||
                          result == X509_V_ERR_IP_ADDRESS_MISMATCH;
  return other_host ? "it is for another host" : X509_verify_cert_error_string(result);
}

/// Whether cpp-httplib's answer is a proxy's refusal of CONNECT, which it returns as if it were the
/// server's. Versions without the word leave CONNECT to open_tunnel().
template <class E>
[[nodiscard]] constexpr bool is_from_proxy(E error) noexcept {
  if constexpr (requires { E::ProxyConnection; }) {
    return error == E::ProxyConnection;
  } else {
    return false;
  }
}

/// One exchange on one connection.
struct Attempt {
  Attempt(HttpRequest const& r, std::stop_token s, HttpHeadSink h, ByteSink b)
      : request(r), stop(std::move(s)), head(h), body(b) {}

  Result<void> run(Connection& connection, ConnectionPool& pool) {
    if (std::chrono::steady_clock::now() >= request.deadline) {
      return fail(Errc::timed_out, "no time left for a request");
    }
    prepare(connection);
    auto& state = connection.state;
    auto const start = std::chrono::steady_clock::now();
    auto const reused = connection.client->is_socket_open() != 0;
    auto const bytes_before = reused ? TcpInfo::of(connection.socket.get()).bytes_received : 0;
    Watch watch(pool.watchdog, request.deadline, stop, std::move(connection.socket));
    connection.client->set_socket_options([&](socket_t socket) { watch.set_socket(socket); });

    auto out = message(pool);
    out.response_handler = [&](httplib::Response const& r) { return on_head(r, state); };
    out.content_receiver = [&](char const* data, std::size_t size, std::uint64_t, std::uint64_t) {
      return on_body(data, size);
    };
    httplib::Response response;
    auto error = httplib::Error::Success;
    ERR_clear_error();
    NoSigpipe const guard;
    auto ok = connection.client->send(out, response, error);
    if (is_from_proxy(error)) {
      refused_ = no_tunnel(std::to_string(response.status));
      ok = false;
    }
    // cpp-httplib calls no handler for an answer that cannot have a body.
    if (ok && !head_seen_) ok = on_head(response, state);

    bool time_over = false;
    std::tie(connection.socket, time_over) = watch.end();
    connection.client->set_socket_options(nullptr);
    if (ok || ended_) return {};
    if (stop.stop_requested()) return fail(Errc::stopping, "the request");
    if (refused_) return fail(*refused_);
    if (!connection.own_stream) ask_kernel(connection, start, bytes_before);
    time_over = time_over || std::chrono::steady_clock::now() >= request.deadline;
    stale = reused && !state.any_byte && !time_over && !state.timed_out;
    return fail(explain(error, connection, time_over));
  }

  HttpRequest const& request;
  std::stop_token stop;
  HttpHeadSink head;
  ByteSink body;
  bool stale = false;  // the connection had been closed before the request came

 private:
  void prepare(Connection& connection) const {
    connection.state = {.deadline = request.deadline,
                        .idle = request.limits.idle,
                        .connect = request.limits.connect,
                        .head_room = request.limits.header};
    auto const left = std::chrono::ceil<std::chrono::milliseconds>(
        request.deadline - std::chrono::steady_clock::now());
    auto const connect =
        std::max(std::min(request.limits.connect, left), std::chrono::milliseconds(1));
    auto const idle = std::max(std::min(request.limits.idle, left), std::chrono::milliseconds(1));
    connection.client->set_connection_timeout(connect);
    connection.client->set_read_timeout(idle);
    connection.client->set_write_timeout(idle);
  }

  [[nodiscard]] httplib::Request message(ConnectionPool const& pool) const {
    httplib::Request out;
    out.method = to_string(request.method);
    out.path = request.url.target;
    for (auto const& header : request.headers) out.headers.emplace(header.name, header.value);
    if (!out.has_header("User-Agent")) out.headers.emplace("User-Agent", pool.options.user_agent);
    out.body = request.body;
    return out;
  }

  [[nodiscard]] bool on_head(httplib::Response const& response, ExchangeState& state) {
    state.head_done = true;
    head_seen_ = true;
    HttpHead out{response.status, {}};
    std::optional<std::string_view> length;
    std::size_t bytes = response.reason.size();
    for (auto const& [name, value] : response.headers) {
      bytes += name.size() + value.size() + 4;  // ": " and the line's end
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
    state.too_large = bytes > request.limits.header;
    if (state.too_large) return false;
    ended_ = !head(out);
    rate_start_ = std::chrono::steady_clock::now();
    return !ended_;
  }

  [[nodiscard]] bool on_body(char const* data, std::size_t size) {
    if (size > request.limits.body - received_) {
      refused_ = Error{Errc::protocol,
                       "the body is longer than " + std::to_string(request.limits.body) + " bytes"};
      return false;
    }
    received_ += size;
    auto const arrived = std::chrono::steady_clock::now();
    if (is_too_slow(size, arrived)) {
      refused_ = Error{Errc::timed_out, std::to_string(rate_bytes_) + " bytes in " +
                                            std::to_string(request.limits.rate_time.count()) +
                                            " milliseconds"};
      return false;
    }
    ended_ = !body(std::as_bytes(std::span(data, size)));
    rate_start_ += std::chrono::steady_clock::now() - arrived;  // not the server's time
    return !ended_;
  }

  [[nodiscard]] bool is_too_slow(std::size_t more, SteadyTime now) {
    auto const& limits = request.limits;
    rate_bytes_ += more;
    auto const time = std::chrono::duration_cast<std::chrono::milliseconds>(now - rate_start_);
    if (time < limits.rate_time) return false;
    auto const least = limits.least_rate * static_cast<std::uint64_t>(time.count()) / 1000;
    if (rate_bytes_ < least) return true;
    rate_start_ = now;
    rate_bytes_ = 0;
    return false;
  }

  /// Fills in what a stream of ours would have seen.
  void ask_kernel(Connection& connection, SteadyTime start, std::uint64_t bytes_before) const {
    auto& state = connection.state;
    auto const info = TcpInfo::of(connection.socket.get());
    auto const waited = std::min<std::chrono::steady_clock::duration>(
        std::chrono::milliseconds(info.last_data_received),
        std::chrono::steady_clock::now() - start);
    state.timed_out = waited >= state.idle;
    // Under TLS, bytes are no answer yet. The end of a connection counts as a byte.
    state.any_byte = connection.tls == nullptr && info.bytes_received > bytes_before + 1;
    state.not_understood = info.was_ended_here() || has_unread_bytes(connection.socket.get());
  }

  [[nodiscard]] Error explain(httplib::Error error, Connection const& connection,
                              bool time_over) const {
    using Kind = httplib::Error;
    auto const& state = connection.state;
    if (state.too_large) return {Errc::protocol, "the head of the response is too large"};
    if (time_over) return {Errc::timed_out, "the request's time is over"};
    if (state.refused) return *state.refused;
    if (state.timed_out) {
      return {Errc::timed_out,
              "nothing came for " + std::to_string(state.idle.count()) + " milliseconds"};
    }
    if (is_distrust(error)) {
      return {Errc::protocol, "TLS: the server's certificate is not to be trusted: " +
                                  certificate_reason(*connection.tls)};
    }
    auto const speaks_no_tls = [] {
      auto const code = ERR_peek_error();
      return ERR_GET_LIB(code) == ERR_LIB_SSL &&
             (ERR_GET_REASON(code) == SSL_R_WRONG_VERSION_NUMBER ||
              ERR_GET_REASON(code) == SSL_R_PACKET_LENGTH_TOO_LONG);
    };
    // The first one is the cause. To close what has not been opened adds one more, or is the only
    // one if the connection broke.
    auto const tls_reason = [] {
      auto const code = ERR_peek_error();
      auto const of_tls =
          ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) != SSL_R_SHUTDOWN_WHILE_IN_INIT;
      auto const* const reason = of_tls ? ERR_reason_error_string(code) : nullptr;
      return std::string(reason != nullptr ? reason : "");
    };
    switch (error) {
      case Kind::Connection: return cannot_connect();
      case Kind::ConnectionTimeout: return {Errc::timed_out, "cannot connect in time"};
      case Kind::SSLLoadingCerts: return {Errc::protocol, "TLS: cannot load the CA certificates"};
      case Kind::SSLConnection: {
        if (speaks_no_tls()) {
          return erofs_oci::explain(Errc::protocol, "TLS: " + std::string(no_tls_text));
        }
        auto const reason = tls_reason();
        auto const broke = !state.not_understood &&
                           (reason.empty() || reason.find("unexpected eof") != std::string::npos);
        return {broke ? Errc::unavailable : Errc::protocol,
                "TLS: no connection" + (reason.empty() ? "" : ": " + reason)};
      }
      default: break;
    }
    if (state.not_understood || (!head_seen_ && state.any_byte)) {
      return {Errc::protocol, "the answer is not HTTP"};
    }
    return {Errc::unavailable,
            head_seen_ ? "the connection broke after " + std::to_string(received_) + " bytes"
                       : "the connection broke before an answer"};
  }

  std::optional<Error> refused_;
  bool ended_ = false;  // by a sink, which is a success
  bool head_seen_ = false;
  std::uint64_t received_ = 0;
  SteadyTime rate_start_{};       // of the time over which the rate is measured
  std::uint64_t rate_bytes_ = 0;  // that came in it
};

}  // namespace erofs_oci::detail
