// SPDX-License-Identifier: Apache-2.0
/// @file
/// What oci/credentials.hpp only declares.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/oci/auth.hpp>
#include <erofs_oci/oci/credentials.hpp>
#include <erofs_oci/oci/encoding.hpp>
#include <erofs_oci/oci/helper.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/posix/trusted_file.hpp>

namespace erofs_oci {

EROFS_OCI_BODY CredentialLookup credential_lookup(CredentialOptions options) {
  return [options = std::move(options)](auto const& registry, auto const& repository) {
    return find_credentials(options, registry, repository);
  };
}

EROFS_OCI_BODY std::string_view helper_server(std::string_view registry) {
  return registry == Reference::docker_hub ? "https://index.docker.io/v1/" : registry;
}

EROFS_OCI_BODY std::optional<Credentials> packed_login(std::string_view packed) {
  auto const text = base64_decode(packed);
  auto const colon = text ? text->find(':') : std::string::npos;
  if (colon == std::string::npos) return std::nullopt;
  Credentials out;
  out.username = text->substr(0, colon);
  out.password = text->substr(colon + 1);
  while (out.password.ends_with('\0')) out.password.pop_back();
  return out;
}

namespace detail {

/// A key of `auths` as `host[/path]`, Docker Hub under its one name.
inline std::string auths_key(std::string_view key) {
  if (auto const scheme = key.find("://"); scheme != std::string_view::npos) {
    key.remove_prefix(scheme + 3);
  }
  auto const strip = [&key](std::string_view end) {
    if (key.ends_with(end)) key.remove_suffix(end.size());
  };
  strip("/");
  strip("/v1");
  strip("/v2");
  auto const slash = std::min(key.find('/'), key.size());
  auto host = ascii_lower(key.substr(0, slash));
  if (host == "docker.io" || host == "index.docker.io") host = Reference::docker_hub;
  return host + std::string(key.substr(slash));
}

/// The login that a helper has given, if it has one.
inline Result<std::optional<Credentials>> helper_login(HelperOutcome const& outcome,
                                                       std::string const& program) {
  if (outcome.exit_status != 0) {
    // The one failure that helpers report in words that all of them share.
    if (outcome.output.find("credentials not found") != std::string::npos) {
      return std::optional<Credentials>();
    }
    return fail(Errc::unauthorized,
                "helper " + program + ": exit status " + std::to_string(outcome.exit_status));
  }
  auto const value = json::parse(as_bytes(outcome.output), "its output");
  if (!value) return fail(Errc::unauthorized, "helper " + program + ": its output is no JSON");
  auto username = json::text(*value, "Username");
  auto secret = json::text(*value, "Secret");
  constexpr std::string_view token = "<token>";  // as a name, says that the secret is one
  if (!username || !secret || (secret->empty() && (username->empty() || *username == token))) {
    return fail(Errc::unauthorized, "helper " + program + ": no login");
  }
  Credentials out;
  if (*username == token) {
    out.identity_token = *std::move(secret);
  } else {
    out.username = *std::move(username);
    out.password = *std::move(secret);
  }
  return std::optional(std::move(out));
}

inline Result<std::optional<Credentials>> ask_helper(std::string const& name,
                                                     std::string_view registry,
                                                     std::chrono::milliseconds limit) {
  if (name.empty() || !is_made_of(name, "._-")) {
    return fail(Errc::corrupt, "credential helper " + quote(name) + ": not a name");
  }
  auto const program = "docker-credential-" + name;
  auto const outcome = run_helper(program, "get", helper_server(registry), limit);
  if (!outcome) return fail(Errc::unauthorized, "helper " + outcome.error().message());
  EROFS_OCI_TRY_ASSIGN(auto found, helper_login(*outcome, program));
  if (found) found->place = program;
  return found;
}

/// One entry of `auths`. An empty one means that a helper has the secret: nothing is known here.
inline Result<std::optional<Credentials>> read_entry(json::Value const& entry) {
  Credentials out;
  auto const read = [&](char const* name, std::string& into) {
    auto text = json::text(entry, name);
    if (text) into = *std::move(text);
    return text.has_value();
  };
  std::string packed;
  if (!entry.is_object() || !read("auth", packed) || !read("username", out.username) ||
      !read("password", out.password) || !read("identitytoken", out.identity_token) ||
      !read("registrytoken", out.registry_token)) {
    return fail(Errc::corrupt, "an entry of auths is malformed");
  }
  if (!packed.empty()) {
    auto login = packed_login(packed);
    if (!login) return fail(Errc::corrupt, "an auth in auths is malformed");
    out.username = std::move(login->username);
    out.password = std::move(login->password);
  }
  if (out == Credentials()) return std::optional<Credentials>();
  return std::optional(std::move(out));
}

}  // namespace detail

EROFS_OCI_BODY Result<std::string> read_password_file(std::string const& path) {
  EROFS_OCI_TRY_ASSIGN(auto const read, read_trusted_file(path, 64 * 1024));
  auto const text = std::string_view(read.text);
  auto line = text.substr(0, text.find('\n'));
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.empty()) return fail(Errc::invalid_argument, path + ": its first line is empty");
  return std::string(line);
}

EROFS_OCI_BODY Result<std::optional<Credentials>> credentials_from(
    std::string_view config, std::string_view registry, std::string_view repository,
    std::chrono::milliseconds helper_limit) {
  EROFS_OCI_TRY_ASSIGN(auto const value, json::parse(as_bytes(config), "config"));

  EROFS_OCI_TRY_ASSIGN(auto const helpers, json::text_map(value, "credHelpers"));
  for (auto const& [host, name] : helpers) {
    if (detail::auths_key(host) == registry) {
      return detail::ask_helper(name, registry, helper_limit);
    }
  }
  EROFS_OCI_TRY_ASSIGN(auto const store, json::text(value, "credsStore"));
  if (!store.empty()) {
    auto found = detail::ask_helper(store, registry, helper_limit);
    if (!found || *found) return found;
  }

  auto const* const auths = json::find(value, "auths");
  if (auths == nullptr) return std::optional<Credentials>();
  if (!auths->is_object()) return fail(Errc::corrupt, "auths is not an object");
  auto const whole = std::string(registry) + "/" + std::string(repository);
  json::Value const* best = nullptr;
  std::size_t best_length = 0;
  for (auto const& [key, entry] : auths->items()) {
    auto const path = detail::auths_key(key);
    if (path.size() < best_length || !whole.starts_with(path)) continue;
    if (path.empty() || (whole.size() > path.size() && whole[path.size()] != '/')) continue;
    best = &entry;
    best_length = path.size();
  }
  if (best == nullptr) return std::optional<Credentials>();
  return detail::read_entry(*best);
}

EROFS_OCI_BODY Result<std::optional<Credentials>> find_credentials(CredentialOptions const& options,
                                                                   std::string const& registry,
                                                                   std::string const& repository) {
  if (options.given && options.given->registry == registry) return options.given->credentials;
  for (auto const& path : options.config_files) {
    auto const read = read_trusted_file(path);
    if (!read) {
      auto const& code = read.error().code;
      if (code == std::errc::no_such_file_or_directory || code == std::errc::not_a_directory) {
        continue;
      }
      return fail(read.error());
    }
    auto found = credentials_from(read->text, registry, repository, options.helper_limit);
    if (!found) return fail(std::move(found).error(), path);
    if (!*found) continue;
    auto& place = (*found)->place;
    place = path + (place.empty() ? "" : " by " + place);
    return found;
  }
  return std::optional<Credentials>();
}

}  // namespace erofs_oci
