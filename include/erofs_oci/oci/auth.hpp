// SPDX-License-Identifier: Apache-2.0
/// @file
/// Challenges of a registry, and the credentials and tokens that answer them.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/source/http_transport.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {

/// Credentials. All members are secrets except the user name and the place; at most one kind is
/// set.
struct Credentials {
  std::string username{};
  std::string password{};
  std::string identity_token{};  ///< to be exchanged for a token, in place of a password
  std::string registry_token{};  ///< to be sent as it is
  std::string place{};           ///< where they were found, for messages

  /// Whether they are the same login, wherever it was found.
  friend bool operator==(Credentials const& a, Credentials const& b) {
    return a.username == b.username && a.password == b.password &&
           a.identity_token == b.identity_token && a.registry_token == b.registry_token;
  }
};

/// Which login that is, for messages: "user `me`, from /root/.docker/config.json".
[[nodiscard]] std::string describe(Credentials const& credentials);

/// Finds the credentials for a registry (`host[:port]`) and repository; none means anonymous. It
/// is asked only once a registry wants some.
using CredentialLookup = std::function<Result<std::optional<Credentials>>(
    std::string const& registry, std::string const& repository)>;

/// One way to log in that a server offers.
struct Challenge {
  std::string scheme;                                           ///< lower case: "bearer", "basic"
  std::vector<std::pair<std::string, std::string>> parameters;  ///< names in lower case
  std::string token68;  ///< what some schemes have in place of parameters

  /// The first parameter of that (lower-case) name.
  [[nodiscard]] std::optional<std::string_view> find(std::string_view name) const;

  friend bool operator==(Challenge const&, Challenge const&) = default;
};

/// Reads one WWW-Authenticate header, which may hold several challenges. @spec{RFC 9110 11.6.1}
/// @error{Errc::protocol, it is malformed or has control characters}
[[nodiscard]] Result<std::vector<Challenge>> parse_challenges(std::string_view text);

/// A challenge as parse_challenges() reads it.
[[nodiscard]] std::string encode(Challenge const& challenge);

/// All challenges of a response, one malformed header not hiding another.
[[nodiscard]] std::vector<Challenge> challenges_of(HttpHead const& head);

/// What a token server gave.
struct Token {
  std::string text;
  std::chrono::seconds lifetime{60};
};

/// Reads a token server's answer.
/// @error{Errc::protocol, it holds no token\, or one with characters that no header may have}
[[nodiscard]] Result<Token> parse_token(std::span<std::byte const> body);

/// What a login is for.
struct LoginScope {
  bool push = false;                     ///< to push to the repository, too; to pull in any case
  std::vector<std::string> also_pull{};  ///< other repositories of the registry

  friend bool operator==(LoginScope const&, LoginScope const&) = default;
};

/// The request that asks a Bearer challenge's realm for a token for `scope`, and for nothing else:
/// of the challenge's scope counts only what the registry calls that repository.
/// @param registry    where the challenge came from; a relative realm is resolved against it
/// @param repository  as it is in the paths of the registry's API
/// @error{Errc::protocol, the realm is missing\, no URL\, or http though the registry is https}
[[nodiscard]] Result<HttpRequest> token_request(Challenge const& challenge, Url const& registry,
                                                std::string_view repository,
                                                std::optional<Credentials> const& credentials,
                                                LoginScope const& scope = {});

/// The value of Authorization for a user name and password.
[[nodiscard]] std::string basic_authorization(Credentials const& credentials);

namespace detail {

/// Whether a text may be put into a header as it is.
bool is_visible(std::string_view text) noexcept;

}  // namespace detail

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/oci/detail/auth_body.hpp>
#endif
