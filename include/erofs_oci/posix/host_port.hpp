// SPDX-License-Identifier: Apache-2.0
/// @file
/// HostPort: "HOST:PORT" taken apart.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>

namespace erofs_oci {

/// Where to listen or connect to by TCP.
struct HostPort {
  std::string host;  ///< without the brackets of an IPv6 address
  std::uint16_t port = 0;

  /// Reads "HOST:PORT" or "[IPV6]:PORT".
  /// @param default_host  what ":PORT" stands for; empty: it is refused
  /// @error{Errc::invalid_argument, it is neither\, or the port is not in [0\, 65535]}
  [[nodiscard]] static Result<HostPort> parse(std::string_view text,
                                              std::string_view default_host = {}) {
    auto const colon = text.rfind(':');
    auto host = text.substr(0, colon == text.npos ? 0 : colon);
    auto const bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    if (host.empty()) host = default_host;
    auto const plain = !host.empty() && (bracketed || host.find_first_of(":[]") == host.npos);
    if (colon == text.npos || !plain) {
      return fail(Errc::invalid_argument, std::string(text) + ": not HOST:PORT or [HOST]:PORT");
    }
    auto digits = text.substr(colon + 1);
    auto const port = take_number<std::uint16_t>(digits);
    if (!port || !digits.empty()) {
      return fail(Errc::invalid_argument,
                  std::string(text) + ": not HOST:PORT: the port is not in [0, 65535]");
    }
    return HostPort{std::string(host), *port};
  }

  /// The same as a text, and as a URL's authority.
  [[nodiscard]] std::string text() const {
    auto const quoted = host.find(':') == host.npos ? host : '[' + host + ']';
    return quoted + ':' + std::to_string(port);
  }

  friend bool operator==(HostPort const&, HostPort const&) = default;
};

}  // namespace erofs_oci
