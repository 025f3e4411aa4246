// SPDX-License-Identifier: Apache-2.0
/// @file
/// Url: an absolute http or https URL, taken apart without changing its spelling.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

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
  [[nodiscard]] std::string authority() const;

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

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/source/detail/url_body.hpp>
#endif
