// SPDX-License-Identifier: Apache-2.0
/// @file
/// What http/proxy.hpp only declares.
#pragma once

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/http/proxy.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {
namespace detail {

/// Whether a host is an address of `network`: an address, or one with "/" and a number of bits.
inline bool is_in_network(std::string_view host, std::string_view network) {
  auto const slash = std::min(network.find('/'), network.size());
  for (auto const family : {AF_INET, AF_INET6}) {
    std::array<unsigned char, sizeof(in6_addr)> a{};
    std::array<unsigned char, sizeof(in6_addr)> b{};
    if (::inet_pton(family, std::string(host).c_str(), a.data()) != 1) continue;
    if (::inet_pton(family, std::string(network.substr(0, slash)).c_str(), b.data()) != 1) continue;
    auto const all = family == AF_INET ? 32u : 128u;
    auto const bits = slash == network.size()
                          ? all
                          : whole_number<unsigned>(network.substr(slash + 1)).value_or(all + 1);
    if (bits > all) return false;
    auto const whole = bits / 8;
    auto const mask = static_cast<unsigned char>(0xff00u >> bits % 8);
    return std::equal(a.begin(), a.begin() + whole, b.begin()) &&
           (bits % 8 == 0 || ((a[whole] ^ b[whole]) & mask) == 0);
  }
  return false;
}

}  // namespace detail

EROFS_OCI_BODY Result<Proxies> Proxies::from_environment(
    FunctionRef<char const*(char const*)> get) {
  auto const find = [&](std::initializer_list<char const*> names) -> std::string {
    for (auto const* name : names) {
      if (auto const* const value = get(name); value != nullptr && *value != '\0') return value;
    }
    return {};
  };
  Proxies out;
  EROFS_OCI_TRY_ASSIGN(out.https, parse(find({"https_proxy", "HTTPS_PROXY"})), "HTTPS_PROXY");
  auto const cgi = get("REQUEST_METHOD") != nullptr;
  EROFS_OCI_TRY_ASSIGN(out.http,
                       parse(cgi ? find({"http_proxy"}) : find({"http_proxy", "HTTP_PROXY"})),
                       "HTTP_PROXY");
  auto const list = find({"no_proxy", "NO_PROXY"});
  for (auto rest = std::string_view(list); !rest.empty();) {
    auto entry = take_part(rest, ',');
    while (entry.starts_with(' ')) entry.remove_prefix(1);
    while (entry.ends_with(' ')) entry.remove_suffix(1);
    if (!entry.empty()) out.direct.push_back(ascii_lower(entry));
  }
  return out;
}

EROFS_OCI_BODY std::optional<Proxy> Proxies::choose(Url const& url) const {
  auto const host = std::string_view(url.host);
  if (host == "localhost" || host == "::1" || host.starts_with("127.")) return std::nullopt;
  auto const goes_direct = [&](std::string_view entry) {
    if (entry == "*" || detail::is_in_network(host, entry)) return true;
    auto const bracket = entry.rfind(']');
    auto const colon = entry.rfind(':');
    auto const has_port = bracket != entry.npos ? colon != entry.npos && colon > bracket
                                                : colon != entry.npos && entry.find(':') == colon;
    if (has_port) {
      if (entry.substr(colon + 1) != std::to_string(url.port)) return false;
      entry = entry.substr(0, colon);
    }
    if (entry.starts_with('[') && entry.ends_with(']')) entry = entry.substr(1, entry.size() - 2);
    if (detail::is_in_network(host, entry)) return true;
    if (entry.starts_with("*.")) entry.remove_prefix(1);
    if (entry.starts_with('.')) entry.remove_prefix(1);
    if (entry.empty()) return false;
    if (!host.ends_with(entry)) return false;
    return host.size() == entry.size() || host[host.size() - entry.size() - 1] == '.';
  };
  if (std::ranges::any_of(direct, goes_direct)) return std::nullopt;
  return url.is_secure() ? https : http;
}

EROFS_OCI_BODY Result<std::optional<Proxy>> Proxies::parse(std::string_view text) {
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

}  // namespace erofs_oci
