// SPDX-License-Identifier: Apache-2.0
/// @file
/// The kept connections of an HttplibTransport.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <netdb.h>

#include <httplib.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/stop.hpp>
#include <erofs_oci/core/thread_pool.hpp>
#include <erofs_oci/http/detail/connection_stream.hpp>
#include <erofs_oci/http/host_pace.hpp>
#include <erofs_oci/http/options.hpp>
#include <erofs_oci/http/resolver.hpp>
#include <erofs_oci/http/watchdog.hpp>
#include <erofs_oci/oci/encoding.hpp>
#include <erofs_oci/oci/registry_host.hpp>
#include <erofs_oci/posix/host_port.hpp>
#include <erofs_oci/source/http_transport.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci::detail {

/// One client, and a duplicate of its socket.
struct Connection {
  Connection() = default;
  Connection(Connection const&) = delete;
  Connection& operator=(Connection const&) = delete;

  ~Connection() {
    NoSigpipe const guard;  // TLS says goodbye to a peer that may be gone
    client.reset();
  }

  ExchangeState state;  // first: used by the client
  std::unique_ptr<httplib::ClientImpl> client;
  httplib::SSLClient const* tls = nullptr;  // the client, if it is one
  bool own_stream = false;                  // which fills in what `state` says of the connection
  Reach reach = Reach::everywhere;          // of the address that it goes to
  UniqueFd socket{};
};

/// A request's target goes out as it is. The name of the setting differs between versions.
template <class Client>
void keep_targets(Client& client) {
  if constexpr (requires { client.set_path_encode(false); }) {
    client.set_path_encode(false);
  } else {
    client.set_url_encode(false);
  }
}

/// Bodies are limited by the request alone; later versions have a limit of their own.
template <class Client>
void lift_body_limit(Client& client) {
  if constexpr (requires { client.set_payload_max_length(std::size_t{}); }) {
    client.set_payload_max_length(std::numeric_limits<std::size_t>::max());
  }
}

/// Sets what cpp-httplib leaves to the system or does in a looser way: TLS 1.2 at least, and the
/// host's name by OpenSSL, in the certificate's alternative names alone.
/// @error{Errc::invalid_argument, a file of authorities cannot be used}
inline Result<void> set_up_tls(SSL_CTX* context, std::string const& host, HostTls const& tls,
                               bool verifies) {
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  if (!verifies) return {};
  auto* const rules = SSL_CTX_get0_param(context);
  X509_VERIFY_PARAM_set_hostflags(
      rules, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  if (X509_VERIFY_PARAM_set1_ip_asc(rules, host.c_str()) != 1 &&
      X509_VERIFY_PARAM_set1_host(rules, host.c_str(), host.size()) != 1) {
    return fail(Errc::invalid_argument, "TLS: no name that a certificate can have");
  }
  for (auto const& file : tls.ca_files) {
    if (SSL_CTX_load_verify_locations(context, file.c_str(), nullptr) != 1) {
      return fail(Errc::invalid_argument, "TLS: " + file + ": no CA certificates can be read");
    }
  }
  return {};
}

/// Idle connections by scheme, host and port, and the watchdog of all that are in use.
class ConnectionPool {
 public:
  explicit ConnectionPool(HttplibOptions chosen)
      : options(std::move(chosen)),
        pace(options.pace ? options.pace : std::make_shared<HostPace>()) {}

  /// An idle connection, the last one used first, or a new one.
  Result<std::unique_ptr<Connection>> take(Url const& url, SteadyTime deadline,
                                           std::stop_token const& stop) {
    {
      std::lock_guard const lock(mutex_);
      auto const idle = idle_.find(key(url));
      if (idle != idle_.end() && !idle->second.empty()) {
        auto out = std::move(idle->second.back());
        idle->second.pop_back();
        return out;
      }
    }
    return make(url, deadline, stop);
  }

  /// A new one, which connects when it is used. Looks up where to.
  Result<std::unique_ptr<Connection>> make(Url const& url, SteadyTime deadline,
                                           std::stop_token const& stop) {
    auto connection = std::make_unique<Connection>();
    auto const proxy = options.proxies.choose(url);
    Dial dial;
    EROFS_OCI_TRY_ASSIGN(dial.addresses,
                         resolver_.resolve(proxy ? proxy->host : url.host, deadline, stop),
                         proxy ? "proxy" : "");
    for (auto& address : dial.addresses) {
      if (!proxy) connection->reach = std::max(connection->reach, address.reach());
      address.set_port(proxy ? proxy->port : url.port);
    }
    if (proxy) connection->reach = reach_of(url.host);
    if (url.is_secure()) {
      if (proxy) dial.tunnel = tunnel(url, *proxy);
      auto const own = url.authority() == options.tls_host;
      auto const& tls = options.tls;
      auto const verifies = !own || !tls.skip_verify;
      auto const& key = tls.client_key.empty() ? tls.client_certificate : tls.client_key;
      auto client = make_client<httplib::SSLClient>(connection->state, url, std::move(dial), proxy,
                                                    own ? tls.client_certificate : std::string(),
                                                    own ? key : std::string());
      if (!client->is_valid()) {
        return fail(Errc::invalid_argument,
                    "TLS: the client certificate or its key cannot be used");
      }
      EROFS_OCI_TRY(set_up_tls(client->ssl_context(), url.host, tls, verifies));
      client->set_ca_cert_path(options.ca_file, options.ca_directory);
      client->enable_server_certificate_verification(verifies);
      connection->tls = client.get();
      connection->own_stream = has_own_stream<httplib::SSLClient>;
      connection->client = std::move(client);
    } else {
      connection->client =
          make_client<httplib::ClientImpl>(connection->state, url, std::move(dial), proxy);
      connection->own_stream = has_own_stream<httplib::ClientImpl>;
    }
    auto& client = *connection->client;
    client.set_keep_alive(true);
    keep_targets(client);
    lift_body_limit(client);
    client.set_decompress(false);
    client.set_follow_location(false);
    client.set_tcp_nodelay(true);
    return connection;
  }

  /// Whether a request may go where its connection goes, if a server has named that place.
  /// @error{Errc::protocol, that server cannot be reached from there itself}
  Result<void> check_reach(HttpRequest const& request, Connection const& connection,
                           std::stop_token const& stop) {
    auto const& by = request.named_by;
    auto const own_place = by.empty() || by == request.url.host;
    if (own_place || options.inward_redirects || connection.reach == Reach::everywhere) return {};
    auto namer = request.url;
    namer.host = by;
    auto reach = reach_of(by);
    if (!options.proxies.choose(namer)) {
      auto const addresses = resolver_.resolve(by, request.deadline, stop);
      if (addresses) reach = std::ranges::max(*addresses, {}, &HostAddress::reach).reach();
    }
    if (connection.reach <= reach) return {};
    return fail(Errc::protocol, by + " sends this request on to " + request.url.authority() +
                                    ", which is in a private network or on this machine: refused");
  }

  void give_back(Url const& url, std::unique_ptr<Connection> connection) {
    if (connection->client->is_socket_open() == 0) return;
    std::lock_guard const lock(mutex_);
    auto& idle = idle_[key(url)];
    if (idle.size() < options.idle_connections) idle.push_back(std::move(connection));
  }

  /// Waits as long as `host` has asked all of us to.
  /// @error{Errc::unavailable, that is longer than `deadline`; Error::retry_after says how long}
  /// @error{Errc::stopping, a stop was requested\, be there a pause or not}
  Result<void> await_turn(std::string const& host, SteadyTime deadline,
                          std::stop_token const& of_request) {
    EitherStop const either(of_request, options.stop);
    auto const& stop = either.token();
    auto const now = std::chrono::steady_clock::now();
    auto const turn = pace->turn(host, now);
    auto const pause = std::chrono::ceil<std::chrono::milliseconds>(turn.value_or(now) - now);
    if (turn && *turn >= deadline) {
      return fail(Error{Errc::unavailable, host + " has asked for a pause", pause});
    }
    if (turn) SteadyClock{stop}.sleep(pause);
    if (stop.stop_requested()) return fail(Errc::stopping, "a request to " + host);
    return {};
  }

  /// Threads for second requests, made when the first one may be needed.
  [[nodiscard]] ThreadPool& hedgers() {
    std::lock_guard const lock(mutex_);
    if (!hedgers_) hedgers_.emplace(most_hedgers, 64);
    return *hedgers_;
  }

  HttplibOptions const options;
  std::shared_ptr<HostPace> const pace;
  Watchdog watchdog;

 private:
  static constexpr std::size_t most_hedgers = 4;  // each waits for one first answer at a time

  /// Of a host that is not looked up here: only an address tells.
  static Reach reach_of(std::string const& host) {
    auto const literal = look_up(host, AI_NUMERICHOST);
    return literal ? literal->front().reach() : Reach::everywhere;
  }

  static std::string tunnel(Url const& url, Proxy const& proxy) {
    auto const place = HostPort{url.host, url.port}.text();
    auto out = "CONNECT " + place + " HTTP/1.1\r\nHost: " + place + "\r\n";
    if (!proxy.username.empty()) {
      out += "Proxy-Authorization: Basic " + base64_encode(proxy.username + ":" + proxy.password) +
             "\r\n";
    }
    return out + "\r\n";
  }

  static std::string key(Url const& url) { return url.scheme + "://" + url.authority(); }

  Resolver resolver_;
  std::mutex mutex_;
  std::map<std::string, std::vector<std::unique_ptr<Connection>>> idle_;
  std::optional<ThreadPool> hedgers_;  // last: its tasks use the rest
};

}  // namespace erofs_oci::detail
