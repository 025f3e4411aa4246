// SPDX-License-Identifier: Apache-2.0
/// @file
/// RegistryHost: where a registry or a mirror of it is asked, for what and how.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/source/http_transport.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {

/// What TLS with one host needs beside the usual. Paths are absolute.
struct HostTls {
  std::vector<std::string> ca_files{};  ///< PEM, trusted beside the other authorities
  std::string client_certificate{};     ///< PEM, for this host alone
  std::string client_key{};             ///< PEM; empty: in the file of the certificate
  bool skip_verify = false;             ///< take any certificate of this host, and of no other one

  friend bool operator==(HostTls const&, HostTls const&) = default;
};

/// One host that has repositories of a registry.
struct RegistryHost {
  Url api{};              ///< base of its API; the target is a path without "/" at its end: "/v2"
  bool pulls = true;      ///< asked for what a digest names, whose content is checked
  bool resolves = true;   ///< believed what a tag means
  HttpHeaders headers{};  ///< for each request to this host and no other one; secrets
  HostTls tls{};

  /// A host by `[http[s]://]HOST[:PORT][/PATH]`; https if nothing else is said. Its API is at
  /// PATH/v2.
  /// @error{Errc::invalid_argument, it is none}
  [[nodiscard]] static Result<RegistryHost> parse(std::string_view text) {
    auto const begin = text.find("://");
    auto const bare = begin == text.npos ? text : text.substr(begin + 3);
    if (!is_registry(bare.substr(0, bare.find('/')))) {
      return fail(Errc::invalid_argument, detail::quote(text) + ": not a registry host");
    }
    RegistryHost out;
    EROFS_OCI_TRY_ASSIGN(out.api,
                         Url::parse(begin == text.npos ? "https://" + std::string(text) : text),
                         detail::quote(text));
    auto& path = out.api.target;
    if (path.find('?') != path.npos) {
      return fail(Errc::invalid_argument, detail::quote(text) + ": a query");
    }
    while (path.ends_with('/')) path.pop_back();
    if (!path.ends_with("/v2")) path += "/v2";
    return out;
  }

  friend bool operator==(RegistryHost const&, RegistryHost const&) = default;
};

}  // namespace erofs_oci
