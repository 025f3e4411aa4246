// SPDX-License-Identifier: Apache-2.0
/// @file
/// HttplibTransport. If you include this file, you link cpp-httplib and libssl.
#pragma once

#include <memory>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/http/options.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {

namespace detail {
class ConnectionPool;
}

/// HTTP/1.1 by cpp-httplib: a pool of kept connections, one exchange each at a time. Copies share
/// the pool, which ends with the last of them.
///
/// Replaces a connection that the server closed while it was idle, without an error. Every exchange
/// ends by its deadline, the look-up of the host's name included, however slowly the server speaks,
/// and at once when HttpRequest::stop or HttplibOptions::stop is requested.
///
/// A host that answers 429 or 503 with Retry-After gets its pause from all requests of all
/// transports with the same HttplibOptions::pace: they wait within their deadlines, or fail at once
/// with Errc::unavailable.
///
/// Where a server sends a request on (HttpRequest::named_by), it may not lead inward: see
/// HttplibOptions::inward_redirects.
///
/// cpp-httplib 0.11 is limited as the request says. What later versions do by themselves:
///   - a head has at most 100 fields, its lines at most 8 KiB; HttpLimits::header is checked when
///   the
///     head is there
///   - a status line of up to 32 KiB is matched by recursion, in 0.18 only under TLS: the longest
///     takes some 8 MB of stack, so a hostile server can end a process
///   - 0.41 writes a query anew, with the same names and values
///   - a host's first address alone is tried, and a proxy's answer to CONNECT is read by
///   cpp-httplib
///
/// Measured with -O2 on 2 busy cores over loopback: a body of 64 MiB from nginx at 750 MB/s, with
/// TLS at 440 MB/s; a read of 4 KiB in 0.1 ms.
///
/// @par Thread safety
/// All members, from any thread, several at once.
class HttplibTransport {
 public:
  /// Makes no connection.
  explicit HttplibTransport(HttplibOptions options = {});

  /// HttpTransport.
  [[nodiscard]] Result<void> exchange(HttpRequest const& request, HttpHeadSink head,
                                      ByteSink body) const;

 private:
  std::shared_ptr<detail::ConnectionPool> pool_;
};

static_assert(HttpTransport<HttplibTransport>);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/http/detail/transport_body.hpp>
#endif
