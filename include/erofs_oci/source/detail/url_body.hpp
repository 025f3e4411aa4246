// SPDX-License-Identifier: Apache-2.0
/// @file
/// What source/url.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {

EROFS_OCI_BODY std::string Url::authority() const {
  auto out = host.find(':') == std::string::npos ? host : "[" + host + "]";
  if (port != default_port(scheme)) out += ":" + std::to_string(port);
  return out;
}

namespace detail {

constexpr std::size_t max_url = 16 * 1024;  // bytes; signed URLs reach 4 KiB

/// Encodes what may not stand in a request line; empty if it has control characters.
inline std::string clean_target(std::string_view text) {
  auto const is_control = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; };
  if (std::ranges::any_of(text, is_control)) return {};
  return percent_encode(text, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~");
}

/// @spec{RFC 3986 5.2.4}
inline std::string remove_dot_segments(std::string_view path) {
  std::string out;
  while (!path.empty()) {
    auto const end = std::min(path.find('/', 1), path.size());
    auto const segment = path.substr(0, end);  // with its leading slash
    path.remove_prefix(end);
    if (segment == "/.." || segment == "/.") {
      if (segment == "/..") out.resize(out.rfind('/') == std::string::npos ? 0 : out.rfind('/'));
      if (path.empty()) out += '/';
      continue;
    }
    out += segment;
  }
  return out.empty() ? "/" : out;
}

}  // namespace detail

EROFS_OCI_BODY Result<void> Url::read_authority(std::string_view text) {
  auto const refuse = [](char const* why) { return fail(Errc::invalid_argument, why); };
  if (text.find('@') != std::string_view::npos) return refuse("URL: a user name in it");
  auto const bracketed = text.starts_with('[');
  auto const end = bracketed ? text.find(']') : std::min(text.find(':'), text.size());
  if (end == std::string_view::npos) return refuse("URL: bad IPv6 address");
  host = bracketed ? text.substr(1, end - 1) : text.substr(0, end);
  text.remove_prefix(bracketed ? end + 1 : end);
  std::ranges::transform(host, host.begin(), to_lower);
  auto const good = bracketed ? host.find_first_not_of("0123456789abcdef:.") == host.npos &&
                                    host.find(':') != host.npos
                              : is_made_of(host, "-._");
  if (host.empty() || host.size() > 253 || !good) return refuse("URL: bad host");
  port = default_port(scheme);
  if (text.empty()) return {};
  if (!take_char(text, ':')) return refuse("URL: bad host");
  if (text.empty()) return {};  // "host:/": the default port, RFC 3986 6.2.3
  auto const number = take_number<std::uint16_t>(text);
  if (!number || *number == 0 || !text.empty()) return refuse("URL: bad port");
  port = *number;
  return {};
}

EROFS_OCI_BODY Result<Url> Url::parse(std::string_view text) {
  if (text.size() > detail::max_url) return fail(Errc::invalid_argument, "URL: too long");
  auto const colon = text.find("://");
  if (colon == std::string_view::npos) return fail(Errc::invalid_argument, "URL: no scheme");
  Url url;
  std::ranges::transform(text.substr(0, colon), std::back_inserter(url.scheme), to_lower);
  if (url.scheme != "http" && url.scheme != "https") {
    return fail(Errc::unsupported, "URL: neither http nor https");
  }
  text.remove_prefix(colon + 3);
  text = text.substr(0, text.find('#'));
  auto const host_end = std::min(text.find_first_of("/?"), text.size());
  EROFS_OCI_TRY(url.read_authority(text.substr(0, host_end)));
  text.remove_prefix(host_end);
  if (text.empty()) {
    url.target = "/";
    return url;
  }
  url.target = detail::clean_target(text);
  if (url.target.empty()) return fail(Errc::invalid_argument, "URL: control characters");
  if (url.target.front() == '?') url.target.insert(0, "/");
  return url;
}

EROFS_OCI_BODY Result<Url> Url::resolve(std::string_view reference) const {
  reference = reference.substr(0, reference.find('#'));
  auto const first = reference.find_first_of(":/?");
  if (first != std::string_view::npos && reference[first] == ':') {
    if (reference.substr(first).starts_with("://")) return parse(reference);
    return fail(Errc::unsupported, "URL: neither http nor https");
  }
  if (reference.starts_with("//")) return parse(scheme + ":" + std::string(reference));

  auto const path = std::string_view(target).substr(0, target.find('?'));
  if (reference.empty()) return parse(to_string());
  if (reference.front() == '/') return parse(origin() + std::string(reference));
  if (reference.front() == '?') return parse(origin() + std::string(path) + std::string(reference));
  auto const query = std::min(reference.find('?'), reference.size());
  auto const joined =
      std::string(path.substr(0, path.rfind('/') + 1)) + std::string(reference.substr(0, query));
  return parse(origin() + detail::remove_dot_segments(joined) +
               std::string(reference.substr(query)));
}

}  // namespace erofs_oci
