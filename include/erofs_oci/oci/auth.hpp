// SPDX-License-Identifier: Apache-2.0
/// @file
/// Challenges and tokens: what a registry says when it wants to know who asks, and what is sent.
#pragma once

#include <algorithm>
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
#include <erofs_oci/oci/encoding.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/source/http_transport.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {

/// Who asks. All members are secrets but the user name; at most one way is filled in.
struct Credentials {
  std::string username{};
  std::string password{};
  std::string identity_token{};  ///< to be exchanged for a token, in place of a password
  std::string registry_token{};  ///< to be sent as it is

  friend bool operator==(Credentials const&, Credentials const&) = default;
};

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
  [[nodiscard]] std::optional<std::string_view> find(std::string_view name) const {
    for (auto const& [key, value] : parameters) {
      if (key == name) return value;
    }
    return std::nullopt;
  }

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

/// The request that asks a Bearer challenge's realm for a token.
/// @param registry  where the challenge came from
/// @param scope     used if the challenge names none
/// @error{Errc::protocol, the realm is missing\, no URL\, or http though the registry is https}
[[nodiscard]] Result<HttpRequest> token_request(Challenge const& challenge, Url const& registry,
                                                std::string_view scope,
                                                std::optional<Credentials> const& credentials);

/// The value of Authorization for a user name and password.
[[nodiscard]] inline std::string basic_authorization(Credentials const& credentials) {
  return "Basic " + base64_encode(credentials.username + ":" + credentials.password);
}

namespace detail {

constexpr bool is_token_character(char c) noexcept {
  return is_letter_or_digit(c) ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}
constexpr bool is_token68_character(char c) noexcept {
  return is_letter_or_digit(c) || std::string_view("-._~+/").find(c) != std::string_view::npos;
}

/// Walks over a WWW-Authenticate value.
class ChallengeParser {
 public:
  explicit ChallengeParser(std::string_view text) noexcept : rest_(text) {}

  Result<std::vector<Challenge>> run() {
    std::vector<Challenge> out;
    for (skip(" \t,"); !rest_.empty(); skip(" \t,")) {
      auto const word = take(is_token_character);
      if (word.empty()) return refuse();
      auto const had_space = skip(" \t");
      if (rest_.starts_with('=') && !out.empty() && out.back().token68.empty()) {
        rest_.remove_prefix(1);
        if (!parameter(out.back(), word)) return refuse();
        continue;
      }
      out.push_back({ascii_lower(word), {}, {}});
      if (had_space && !first_of(out.back())) return refuse();
    }
    return out;
  }

 private:
  static tl::unexpected<Error> refuse() {
    return fail(Errc::protocol, "WWW-Authenticate is malformed");
  }

  /// What stands between a scheme and the next comma: a parameter, a token68, or nothing.
  bool first_of(Challenge& challenge) {
    if (rest_.empty() || rest_.starts_with(',')) return true;
    auto const start = rest_;
    auto const word = take(is_token_character);
    skip(" \t");
    if (!word.empty() && rest_.starts_with('=')) {
      rest_.remove_prefix(1);
      auto const after = rest_;
      if (parameter(challenge, word)) return true;
      challenge.parameters.clear();
      rest_ = after;
    }
    rest_ = start;
    auto const begin = rest_;
    if (take(is_token68_character).empty()) return false;
    take([](char c) { return c == '='; });
    challenge.token68 = begin.substr(0, begin.size() - rest_.size());
    skip(" \t");
    return rest_.empty() || rest_.starts_with(',');
  }

  /// The value behind "=", up to the next comma.
  bool parameter(Challenge& challenge, std::string_view name) {
    skip(" \t");
    std::string value;
    if (rest_.starts_with('"')) {
      rest_.remove_prefix(1);
      for (;; rest_.remove_prefix(1)) {
        if (rest_.starts_with('\\'))
          rest_.remove_prefix(1);
        else if (rest_.starts_with('"'))
          break;
        if (rest_.empty()) return false;
        value += rest_.front();
      }
      rest_.remove_prefix(1);
    } else {
      auto const word = take(is_token_character);
      if (word.empty()) return false;
      value = word;
    }
    challenge.parameters.emplace_back(ascii_lower(name), std::move(value));
    skip(" \t");
    return rest_.empty() || rest_.starts_with(',');
  }

  bool skip(std::string_view set) {
    auto const n = std::min(rest_.find_first_not_of(set), rest_.size());
    rest_.remove_prefix(n);
    return n > 0;
  }

  template <class Predicate>
  std::string_view take(Predicate predicate) {
    auto const end = std::ranges::find_if_not(rest_, predicate);
    auto const word = rest_.substr(0, static_cast<std::size_t>(end - rest_.begin()));
    rest_.remove_prefix(word.size());
    return word;
  }

  std::string_view rest_;
};

/// Whether a text may be put into a header as it is.
inline bool is_visible(std::string_view text) noexcept {
  return std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~'; });
}

}  // namespace detail

inline Result<std::vector<Challenge>> parse_challenges(std::string_view text) {
  auto const control = [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
  };
  if (std::ranges::any_of(text, control)) {
    return fail(Errc::protocol, "WWW-Authenticate has control characters");
  }
  return detail::ChallengeParser(text).run();
}

inline std::string encode(Challenge const& challenge) {
  auto out = challenge.scheme;
  if (!challenge.token68.empty()) return out + " " + challenge.token68;
  auto const* separator = " ";
  for (auto const& [name, value] : challenge.parameters) {
    out += separator + name + "=\"";
    for (auto const c : value) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    out += '"';
    separator = ", ";
  }
  return out;
}

inline std::vector<Challenge> challenges_of(HttpHead const& head) {
  std::vector<Challenge> out;
  for (auto const& header : head.headers) {
    if (!equal_ignoring_case(header.name, "WWW-Authenticate")) continue;
    auto more = parse_challenges(header.value);
    if (more) out.insert(out.end(), more->begin(), more->end());
  }
  return out;
}

inline Result<Token> parse_token(std::span<std::byte const> body) {
  auto const refuse = [](std::string why) {
    return fail(Errc::protocol, "token server: " + std::move(why));
  };
  auto const value = json::parse(body, "answer");
  if (!value) return refuse(value.error().message());
  auto token = json::text(*value, "token");
  if (!token || token->empty()) token = json::text(*value, "access_token");
  if (!token || token->empty()) return refuse("the answer holds no token");
  if (!detail::is_visible(*token))
    return refuse("the token has characters that no header may have");
  Token out{*std::move(token)};
  auto const lifetime = json::count(*value, "expires_in");
  if (lifetime && *lifetime > 0) {
    out.lifetime = std::chrono::seconds(std::min<std::uint64_t>(*lifetime, 24 * 3600));
  }
  return out;
}

inline Result<HttpRequest> token_request(Challenge const& challenge, Url const& registry,
                                         std::string_view scope,
                                         std::optional<Credentials> const& credentials) {
  auto const realm = challenge.find("realm");
  if (!realm) return fail(Errc::protocol, "the registry's Bearer challenge names no realm");
  auto url = Url::parse(*realm);
  if (!url) return fail(Errc::protocol, "the registry's token server: " + url.error().message());
  if (registry.is_secure() && !url->is_secure()) {
    return fail(Errc::protocol, "the registry's token server " + url->without_query() +
                                    " is http, the registry https: no login");
  }
  auto const service = challenge.find("service").value_or("");
  auto const wanted = challenge.find("scope").value_or(scope);

  std::string form;
  auto const add = [&form](std::string_view name, std::string_view value) {
    if (value.empty()) return;
    if (!form.empty()) form += '&';
    form += std::string(name) + "=" + percent_encode(value);
  };
  HttpRequest out;
  out.headers = {{"Accept", "application/json"}};
  if (credentials && !credentials->identity_token.empty()) {
    add("grant_type", "refresh_token");
    add("service", service);
    add("scope", wanted);
    add("client_id", "erofs_oci");
    add("refresh_token", credentials->identity_token);
    out.method = HttpMethod::post;
    out.headers.push_back({"Content-Type", "application/x-www-form-urlencoded"});
    out.body = std::move(form);
  } else {
    add("service", service);
    add("scope", wanted);
    if (!form.empty())
      url->target += (url->target.find('?') == std::string::npos ? "?" : "&") + form;
    if (credentials && !credentials->username.empty()) {
      out.headers.push_back({"Authorization", basic_authorization(*credentials)});
    }
  }
  out.url = *std::move(url);
  return out;
}

}  // namespace erofs_oci
