// SPDX-License-Identifier: Apache-2.0
/// @file
/// What oci/auth.hpp only declares.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/oci/auth.hpp>
#include <erofs_oci/oci/encoding.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/source/http_transport.hpp>
#include <erofs_oci/source/url.hpp>

namespace erofs_oci {

EROFS_OCI_BODY std::optional<std::string_view> Challenge::find(std::string_view name) const {
  for (auto const& [key, value] : parameters) {
    if (key == name) return value;
  }
  return std::nullopt;
}

EROFS_OCI_BODY std::string basic_authorization(Credentials const& credentials) {
  return "Basic " + base64_encode(credentials.username + ":" + credentials.password);
}

EROFS_OCI_BODY std::string describe(Credentials const& credentials) {
  auto const is_user = credentials.identity_token.empty() && credentials.registry_token.empty();
  auto const what = is_user ? "user " + detail::quote(credentials.username) : "a token";
  return credentials.place.empty() ? what : what + " from " + credentials.place;
}

namespace detail {

/// Walks over a WWW-Authenticate value.
class ChallengeParser {
 public:
  explicit ChallengeParser(std::string_view text) noexcept : rest_(text) {}

  Result<std::vector<Challenge>> run() {
    std::vector<Challenge> out;
    for (skip(" \t,"); !rest_.empty(); skip(" \t,")) {
      auto const word = take(token_marks);
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
  static constexpr std::string_view token_marks = "!#$%&'*+-.^_`|~";

  static tl::unexpected<Error> refuse() {
    return fail(Errc::protocol, "WWW-Authenticate is malformed");
  }

  /// What stands between a scheme and the next comma: a parameter, a token68, or nothing.
  bool first_of(Challenge& challenge) {
    if (rest_.empty() || rest_.starts_with(',')) return true;
    auto const start = rest_;
    auto const word = take(token_marks);
    skip(" \t");
    if (!word.empty() && rest_.starts_with('=')) {
      rest_.remove_prefix(1);
      auto const after = rest_;
      if (parameter(challenge, word)) return true;
      challenge.parameters.clear();
      rest_ = after;
    }
    rest_ = start;
    if (take("-._~+/").empty()) return false;
    skip("=");
    challenge.token68 = start.substr(0, start.size() - rest_.size());
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
      auto const word = take(token_marks);
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

  /// Takes letters, digits and `others`.
  std::string_view take(std::string_view others) {
    auto const end = std::ranges::find_if_not(
        rest_, [&](char c) { return is_letter_or_digit(c) || others.find(c) != others.npos; });
    auto const word = rest_.substr(0, static_cast<std::size_t>(end - rest_.begin()));
    rest_.remove_prefix(word.size());
    return word;
  }

  std::string_view rest_;
};

EROFS_OCI_BODY bool is_visible(std::string_view text) noexcept {
  return std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~'; });
}

/// What the registry's challenge calls a repository: one behind a proxy may call it `PREFIX/NAME`.
/// What else the challenge wants, another repository or the right to push, is not its to say.
inline std::string name_in_scope(std::string_view offered, std::string_view repository) {
  constexpr std::string_view type = "repository:";
  auto const suffix = "/" + std::string(repository);
  while (!offered.empty()) {
    auto word = offered.substr(0, offered.find(' '));
    offered.remove_prefix(std::min(word.size() + 1, offered.size()));
    auto const actions = word.rfind(':');
    if (!word.starts_with(type) || actions < type.size()) continue;
    auto const name = word.substr(type.size(), actions - type.size());
    if (name.ends_with(suffix)) return std::string(name);
  }
  return std::string(repository);
}

/// The scopes to ask for. @spec{distribution, token scopes}
inline std::vector<std::string> scopes_of(std::string_view offered, std::string_view repository,
                                          LoginScope const& scope) {
  std::vector<std::string> out{"repository:" + name_in_scope(offered, repository) +
                               (scope.push ? ":pull,push" : ":pull")};
  for (auto const& other : scope.also_pull) out.push_back("repository:" + other + ":pull");
  return out;
}

}  // namespace detail

EROFS_OCI_BODY Result<std::vector<Challenge>> parse_challenges(std::string_view text) {
  auto const control = [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
  };
  if (std::ranges::any_of(text, control)) {
    return fail(Errc::protocol, "WWW-Authenticate has control characters");
  }
  return detail::ChallengeParser(text).run();
}

EROFS_OCI_BODY std::string encode(Challenge const& challenge) {
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

EROFS_OCI_BODY std::vector<Challenge> challenges_of(HttpHead const& head) {
  std::vector<Challenge> out;
  for (auto const& header : head.headers) {
    if (!equal_ignoring_case(header.name, "WWW-Authenticate")) continue;
    auto more = parse_challenges(header.value);
    if (more) out.insert(out.end(), more->begin(), more->end());
  }
  return out;
}

EROFS_OCI_BODY Result<Token> parse_token(std::span<std::byte const> body) {
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

EROFS_OCI_BODY Result<HttpRequest> token_request(Challenge const& challenge, Url const& registry,
                                                 std::string_view repository,
                                                 std::optional<Credentials> const& credentials,
                                                 LoginScope const& scope) {
  auto const realm = challenge.find("realm").value_or("");
  if (realm.empty()) {
    return fail(Errc::protocol, "the registry's Bearer challenge names no realm");
  }
  auto url = registry.resolve(realm);
  if (!url) return fail(Errc::protocol, "the registry's token server: " + url.error().message());
  if (registry.is_secure() && !url->is_secure()) {
    return fail(Errc::protocol, "the registry's token server " + url->without_query() +
                                    " is http, the registry https: no login");
  }
  auto const service = challenge.find("service").value_or("");
  auto const wanted = detail::scopes_of(challenge.find("scope").value_or(""), repository, scope);

  std::string form;
  auto const add = [&form](std::string_view name, std::string_view value) {
    if (value.empty()) return;
    if (!form.empty()) form += '&';
    form += std::string(name) + "=" + percent_encode(value);
  };
  HttpRequest out;
  out.headers = {{"Accept", "application/json"}};
  if (credentials && !credentials->identity_token.empty()) {
    std::string all;  // OAuth 2 has one list, divided by blanks
    for (auto const& one : wanted) all += (all.empty() ? "" : " ") + one;
    add("grant_type", "refresh_token");
    add("service", service);
    add("scope", all);
    add("client_id", "erofs_oci");
    add("refresh_token", credentials->identity_token);
    out.method = HttpMethod::post;
    out.headers.push_back({"Content-Type", "application/x-www-form-urlencoded"});
    out.body = std::move(form);
  } else {
    add("service", service);
    for (auto const& one : wanted) add("scope", one);
    if (!form.empty())
      url->target += (url->target.find('?') == std::string::npos ? "?" : "&") + form;
    if (credentials && !credentials->username.empty()) {
      out.headers.push_back({"Authorization", basic_authorization(*credentials)});
    }
  }
  out.url = *std::move(url);
  out.named_by = registry.host;
  return out;
}

}  // namespace erofs_oci
