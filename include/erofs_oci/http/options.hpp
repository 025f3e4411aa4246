// SPDX-License-Identifier: Apache-2.0
/// @file
/// HttplibOptions: how an HttplibTransport makes its connections.
#pragma once

#include <cstddef>
#include <memory>
#include <stop_token>
#include <string>

#include <erofs_oci/http/hedging.hpp>
#include <erofs_oci/http/host_pace.hpp>
#include <erofs_oci/http/proxy.hpp>
#include <erofs_oci/oci/registry_host.hpp>

namespace erofs_oci {

/// What the message of an exchange ends with if something that is not TLS answers at an https URL.
inline constexpr std::string_view no_tls_text = "the server does not speak TLS; it may speak http";

/// How connections are made. Certificates are verified, but for HostTls::skip_verify; TLS is 1.2 or
/// newer.
struct HttplibOptions {
  /// PEM. If it is set, no other authority is trusted, neither the system's nor `ca_directory`'s;
  /// only those of `tls` are. Default: the system's
  std::string ca_file{};
  std::string ca_directory{};  ///< hashed, as OpenSSL wants it; in place of the system's
  HostTls tls{};               ///< of `tls_host`; its authorities count everywhere
  std::string tls_host{};      ///< Url::authority(); only this host sees the client certificate
  Proxies proxies{};           ///< Default: none; see Proxies::from_environment()
  /// Whether a server may send requests on to a place that it cannot be reached from itself (see
  /// Reach): a registry in the internet to 10.0.0.1, say. Default: false
  bool inward_redirects = false;
  std::string user_agent = "erofs_oci";
  std::size_t idle_connections = 16;  ///< kept for each scheme, host and port. Default: 16
  /// Which hosts have asked for a pause: one for all transports of a process, or they come back to
  /// such a host one after the other. Default: the transport's own
  std::shared_ptr<HostPace> pace{};
  /// A request for a range whose answer is late is sent a second time, on another connection; the
  /// first answer counts, and the other request is ended. Shared like `pace`. Default: never
  std::shared_ptr<Hedging> hedging{};
  /// Ends all exchanges at once, those that will be begun included. Default: nothing does
  std::stop_token stop{};
};

}  // namespace erofs_oci
