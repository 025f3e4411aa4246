// SPDX-License-Identifier: Apache-2.0
/// @file
/// Url: an absolute http or https URL, taken apart without changing its spelling.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// `scheme://host[:port]/path[?query]`. What is percent-encoded stays as it is and nothing is
/// encoded twice, since signed URLs are signed letter by letter.
struct Url {
  std::string scheme;      ///< "http" or "https"
  std::string host;        ///< lower case; IPv6 without its brackets
  std::uint16_t port = 0;  ///< never 0 after parse()
  std::string target;      ///< path and query, for the request line; starts with "/"

  /// Reads an absolute URL. A fragment is dropped; spaces and bytes above 126 are encoded.
  /// @error{Errc::invalid_argument, not a URL\, or one with a user name in it}
  /// @error{Errc::unsupported, a scheme that is neither http nor https}
  [[nodiscard]] static Result<Url> parse(std::string_view text);

  /// Reads what a Location header holds: an absolute URL or a reference relative to this one.
  /// @error{as parse(), as parse()}
  [[nodiscard]] Result<Url> resolve(std::string_view reference) const;

  /// `host[:port]`, the port only if it is not the scheme's own.
  [[nodiscard]] std::string authority() const {
    auto out = host.find(':') == std::string::npos ? host : "[" + host + "]";
    if (port != default_port(scheme)) out += ":" + std::to_string(port);
    return out;
  }

  [[nodiscard]] std::string to_string() const { return origin() + target; }

  /// For messages: a query may hold a signature, which is a secret.
  [[nodiscard]] std::string without_query() const {
    return origin() + target.substr(0, target.find('?'));
  }

  /// Whether secrets for this URL may go to that one.
  [[nodiscard]] bool same_origin(Url const& other) const noexcept {
    return scheme == other.scheme && host == other.host && port == other.port;
  }

  [[nodiscard]] bool is_secure() const noexcept { return scheme == "https"; }

  friend bool operator==(Url const&, Url const&) = default;

 private:
  [[nodiscard]] std::string origin() const { return scheme + "://" + authority(); }

  static constexpr std::uint16_t default_port(std::string_view scheme) noexcept {
    return scheme == "https" ? 443 : 80;
  }

  [[nodiscard]] Result<void> read_authority(std::string_view text);
};

namespace detail {

constexpr std::size_t max_url = 16 * 1024;  // bytes; signed URLs reach 4 KiB

/// Encodes what may not stand in a request line; empty if it has control characters.
inline std::string clean_target(std::string_view text) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (auto const c : text) {
    auto const byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) return {};
    if (byte == 0x20 || byte > 0x7f) {
      out += '%';
      out += digits[byte >> 4];
      out += digits[byte & 15];
    } else {
      out += c;
    }
  }
  return out;
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

constexpr bool is_host_character(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

}  // namespace detail

inline Result<void> Url::read_authority(std::string_view text) {
  auto const refuse = [](char const* why) { return fail(Errc::invalid_argument, why); };
  if (text.find('@') != std::string_view::npos) return refuse("URL: a user name in it");
  auto const bracketed = text.starts_with('[');
  auto const end = bracketed ? text.find(']') : std::min(text.find(':'), text.size());
  if (end == std::string_view::npos) return refuse("URL: bad IPv6 address");
  host = bracketed ? text.substr(1, end - 1) : text.substr(0, end);
  text.remove_prefix(bracketed ? end + 1 : end);
  for (auto& c : host) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  auto const good = [bracketed](char c) {
    if (!bracketed) return detail::is_host_character(c);
    return (c >= 'a' && c <= 'f') || (c >= '0' && c <= '9') || c == ':' || c == '.';
  };
  if (host.empty() || host.size() > 253 || !std::ranges::all_of(host, good) ||
      (bracketed && host.find(':') == std::string::npos)) {
    return refuse("URL: bad host");
  }
  port = default_port(scheme);
  if (text.empty()) return {};
  if (text.front() != ':') return refuse("URL: bad host");
  text.remove_prefix(1);
  if (text.empty()) return {};  // "host:/": the default port, RFC 3986 6.2.3
  unsigned value = 0;
  for (auto const c : text) {
    if (c < '0' || c > '9' || value > 65535) return refuse("URL: bad port");
    value = value * 10 + static_cast<unsigned>(c - '0');
  }
  if (value == 0 || value > 65535) return refuse("URL: bad port");
  port = static_cast<std::uint16_t>(value);
  return {};
}

inline Result<Url> Url::parse(std::string_view text) {
  if (text.size() > detail::max_url) return fail(Errc::invalid_argument, "URL: too long");
  auto const colon = text.find("://");
  if (colon == std::string_view::npos) return fail(Errc::invalid_argument, "URL: no scheme");
  Url url;
  for (auto const c : text.substr(0, colon)) {
    url.scheme += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  if (url.scheme != "http" && url.scheme != "https") {
    return fail(Errc::unsupported, "URL: neither http nor https");
  }
  text.remove_prefix(colon + 3);
  text = text.substr(0, text.find('#'));
  auto const host_end = std::min(text.find_first_of("/?"), text.size());
  if (auto ok = url.read_authority(text.substr(0, host_end)); !ok) return fail(ok.error());
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

inline Result<Url> Url::resolve(std::string_view reference) const {
  reference = reference.substr(0, reference.find('#'));
  auto const first = reference.find_first_of(":/?");
  if (first != std::string_view::npos && reference[first] == ':') {
    if (reference.substr(first).starts_with("://")) return parse(reference);
    return fail(Errc::unsupported, "URL: neither http nor https");
  }
  if (reference.starts_with("//")) return parse(scheme + ":" + std::string(reference));

  auto const path = std::string_view(target).substr(0, target.find('?'));
  std::string joined;
  if (reference.empty()) {
    joined = target;
  } else if (reference.front() == '/') {
    joined = reference;
  } else if (reference.front() == '?') {
    joined = std::string(path) + std::string(reference);
  } else {
    auto const query = std::min(reference.find('?'), reference.size());
    joined = detail::remove_dot_segments(std::string(path.substr(0, path.rfind('/') + 1)) +
                                         std::string(reference.substr(0, query))) +
             std::string(reference.substr(query));
  }
  return parse(origin() + joined);
}

}  // namespace erofs_oci
