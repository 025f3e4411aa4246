// SPDX-License-Identifier: Apache-2.0
/// @file
/// Proxies: which proxy a URL is asked through.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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
  std::vector<std::string> direct{};  ///< "host", ".domain", "*", each perhaps with ":port"

  /// Reads HTTPS_PROXY, HTTP_PROXY and NO_PROXY, the lower-case names first. HTTP_PROXY in capitals
  /// is not read where REQUEST_METHOD is set, since a CGI program's client could have made it.
  /// @param get  finds a variable, as std::getenv does
  /// @error{Errc::invalid_argument, a proxy that is no URL}
  /// @error{Errc::unsupported, a proxy that is not http}
  template <class Get>
  [[nodiscard]] static Result<Proxies> from_environment(Get const& get);

  /// The same from this process's environment.
  [[nodiscard]] static Result<Proxies> from_environment() {
    return from_environment([](char const* name) { return std::getenv(name); });
  }

  /// The proxy for `url`; none: go there directly, as always to this machine itself.
  [[nodiscard]] std::optional<Proxy> choose(Url const& url) const {
    auto const& proxy = url.is_secure() ? https : http;
    if (!proxy || goes_direct(url)) return std::nullopt;
    return proxy;
  }

 private:
  [[nodiscard]] bool goes_direct(Url const& url) const {
    if (url.host == "localhost" || url.host == "::1" || url.host.starts_with("127.")) return true;
    return std::ranges::any_of(direct, [&](std::string_view entry) {
      if (entry == "*") return true;
      auto const colon = entry.rfind(':');
      if (colon != std::string_view::npos && entry.find(':') == colon) {
        if (entry.substr(colon + 1) != std::to_string(url.port)) return false;
        entry = entry.substr(0, colon);
      }
      if (entry.starts_with("*.")) entry.remove_prefix(1);
      if (entry.starts_with('.')) entry.remove_prefix(1);
      if (entry.empty()) return false;
      auto const host = std::string_view(url.host);
      if (!host.ends_with(entry)) return false;
      return host.size() == entry.size() || host[host.size() - entry.size() - 1] == '.';
    });
  }

  [[nodiscard]] static Result<std::optional<Proxy>> parse(std::string_view text);
};

inline Result<std::optional<Proxy>> Proxies::parse(std::string_view text) {
  if (text.empty()) return std::optional<Proxy>();
  Proxy out;
  auto const scheme = text.find("://");
  auto rest = scheme == std::string_view::npos ? text : text.substr(scheme + 3);
  auto const name = scheme == std::string_view::npos ? "http" : text.substr(0, scheme);
  if (name != "http") return fail(Errc::unsupported, "a proxy that is spoken to over TLS or SOCKS");
  if (auto const at = rest.rfind('@'); at != std::string_view::npos) {
    auto const user = rest.substr(0, at);
    auto const colon = std::min(user.find(':'), user.size());
    out.username = user.substr(0, colon);
    out.password = user.substr(std::min(colon + 1, user.size()));
    rest.remove_prefix(at + 1);
  }
  // The text may hold a password, so no message quotes it.
  auto const url = Url::parse("http://" + std::string(rest));
  if (!url) return fail(Errc::invalid_argument, "the proxy in the environment is no URL");
  out.host = url->host;
  out.port = url->port;
  return std::optional(std::move(out));
}

template <class Get>
Result<Proxies> Proxies::from_environment(Get const& get) {
  auto const find = [&](std::initializer_list<char const*> names) {
    for (auto const* name : names) {
      if (char const* const value = get(name); value != nullptr && *value != '\0') {
        return std::string(value);
      }
    }
    return std::string();
  };
  Proxies out;
  auto const https = parse(find({"https_proxy", "HTTPS_PROXY"}));
  if (!https) return fail(https.error(), "HTTPS_PROXY");
  auto const cgi = get("REQUEST_METHOD") != nullptr;
  auto const http = parse(cgi ? find({"http_proxy"}) : find({"http_proxy", "HTTP_PROXY"}));
  if (!http) return fail(http.error(), "HTTP_PROXY");
  out.https = *https;
  out.http = *http;
  auto const list = find({"no_proxy", "NO_PROXY"});
  for (auto rest = std::string_view(list); !rest.empty();) {
    auto const end = std::min(rest.find(','), rest.size());
    auto entry = rest.substr(0, end);
    while (entry.starts_with(' ')) entry.remove_prefix(1);
    while (entry.ends_with(' ')) entry.remove_suffix(1);
    std::string lower(entry);
    for (auto& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    if (!lower.empty()) out.direct.push_back(std::move(lower));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return out;
}

}  // namespace erofs_oci
