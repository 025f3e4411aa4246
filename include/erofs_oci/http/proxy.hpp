// SPDX-License-Identifier: Apache-2.0
/// @file
/// Proxies: which proxy a URL is asked through.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {

/// An HTTP proxy.
struct Proxy {
  std::string host;
  std::uint16_t port = 0;
  std::string username{};
  std::string password{};

  friend bool operator==(Proxy const&, Proxy const&) = default;
};

/// The proxies of http and https URLs, and the hosts that are asked directly.
struct Proxies {
  std::optional<Proxy> http{};
  std::optional<Proxy> https{};
  /// "host", ".domain", "*", an address or "address/bits", each but the last perhaps with ":port".
  /// IPv6 may be in brackets, and is with a port. Names are not looked up.
  std::vector<std::string> direct{};

  /// Reads HTTPS_PROXY, HTTP_PROXY and NO_PROXY, the lower-case names first. HTTP_PROXY in capitals
  /// is not read where REQUEST_METHOD is set, since a CGI program's client could have made it.
  /// @param get  finds a variable, as std::getenv does
  /// @error{Errc::invalid_argument, a proxy that is no URL}
  /// @error{Errc::unsupported, a proxy that is not http}
  [[nodiscard]] static Result<Proxies> from_environment(FunctionRef<char const*(char const*)> get);

  /// The same from this process's environment.
  [[nodiscard]] static Result<Proxies> from_environment() {
    return from_environment([](char const* name) { return std::getenv(name); });
  }

  /// The proxy for `url`; none: go there directly, as always to this machine itself.
  [[nodiscard]] std::optional<Proxy> choose(Url const& url) const;

 private:
  [[nodiscard]] static Result<std::optional<Proxy>> parse(std::string_view text);
};

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/http/detail/proxy_body.hpp>
#endif
