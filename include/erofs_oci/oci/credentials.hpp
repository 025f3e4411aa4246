// SPDX-License-Identifier: Apache-2.0
/// @file
/// Finding credentials: Docker's config.json, containers' auth.json, credential helpers.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/oci/auth.hpp>
#include <erofs_oci/oci/encoding.hpp>
#include <erofs_oci/oci/helper.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/reference.hpp>

namespace erofs_oci {

/// Where credentials are looked for. The first place that has some wins.
struct CredentialOptions {
  std::optional<Credentials> given{};       ///< what the user gave; then nothing else is read
  std::vector<std::string> config_files{};  ///< in order; missing ones are skipped
  std::chrono::milliseconds helper_limit{10'000};  ///< for one helper. Default: 10 s
};

/// The files that others read, in order: `$DOCKER_CONFIG/config.json`, else
/// `$HOME/.docker/config.json`; `$REGISTRY_AUTH_FILE`; `$XDG_RUNTIME_DIR/containers/auth.json`.
/// Under sudo and mount(8), HOME is root's.
/// @param get  finds a variable, as std::getenv does
template <class Get>
[[nodiscard]] std::vector<std::string> default_config_files(Get const& get) {
  std::vector<std::string> out;
  auto const add = [&](char const* variable, char const* rest) {
    char const* const value = get(variable);
    if (value == nullptr || *value == '\0') return false;
    out.push_back(std::string(value) + rest);
    return true;
  };
  if (!add("DOCKER_CONFIG", "/config.json")) add("HOME", "/.docker/config.json");
  add("REGISTRY_AUTH_FILE", "");
  add("XDG_RUNTIME_DIR", "/containers/auth.json");
  return out;
}

/// The same from this process's environment.
[[nodiscard]] inline std::vector<std::string> default_config_files() {
  return default_config_files([](char const* name) { return std::getenv(name); });
}

/// A password from a file: its first line.
/// @error{Errc::invalid_argument, the file is empty or longer than 64 KiB}
/// @error{an errno, it cannot be read}
[[nodiscard]] Result<std::string> read_password_file(std::string const& path);

/// Credentials for a repository from the text of one config file: credHelpers, then credsStore,
/// then auths, whose longest matching path wins.
/// @error{Errc::corrupt, the text is not such a file}
/// @error{Errc::unauthorized, the helper that the file names fails}
[[nodiscard]] Result<std::optional<Credentials>> credentials_from(
    std::string_view config, std::string_view registry, std::string_view repository,
    std::chrono::milliseconds helper_limit);

/// Credentials for a repository, or none: anonymous.
/// @error{as credentials_from(), as credentials_from(); the message names the file}
[[nodiscard]] Result<std::optional<Credentials>> find_credentials(CredentialOptions const& options,
                                                                  std::string const& registry,
                                                                  std::string const& repository);

/// find_credentials() as a CredentialLookup.
[[nodiscard]] inline CredentialLookup credential_lookup(CredentialOptions options) {
  return
      [options = std::move(options)](std::string const& registry, std::string const& repository) {
        return find_credentials(options, registry, repository);
      };
}

namespace detail {

/// What helpers and config files call Docker Hub.
inline constexpr std::string_view hub_key = "https://index.docker.io/v1/";

inline Result<Bytes> read_small_file(std::string const& path, std::size_t longest) {
  auto fd = open_read(path);
  if (!fd) return fail(std::move(fd).error());
  Bytes bytes(longest + 1);
  auto const n = read_full(fd->get(), bytes);
  if (!n) return fail(n.error(), path);
  if (*n > longest) return fail(Errc::invalid_argument, path + ": too long");
  bytes.resize(*n);
  return bytes;
}

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

inline Result<std::optional<Credentials>> ask_helper(std::string const& name,
                                                     std::string_view registry,
                                                     std::chrono::milliseconds limit) {
  auto const good = !name.empty() && std::ranges::all_of(name, [](char c) {
    return is_letter_or_digit(c) || c == '.' || c == '_' || c == '-';
  });
  if (!good) return fail(Errc::corrupt, "credential helper " + quote(name) + ": not a name");
  auto const program = "docker-credential-" + name;
  auto const asked = registry == Reference::docker_hub ? hub_key : registry;
  auto const outcome = run_helper(program, "get", asked, limit);
  if (!outcome) return fail(Errc::unauthorized, "helper " + outcome.error().message());
  if (outcome->exit_status != 0) {
    // The one failure that helpers report in words that all of them share.
    if (outcome->output.find("credentials not found") != std::string::npos) {
      return std::optional<Credentials>();
    }
    return fail(Errc::unauthorized,
                "helper " + program + ": exit status " + std::to_string(outcome->exit_status));
  }
  auto const value = json::parse(as_bytes(outcome->output), "its output");
  if (!value) return fail(Errc::unauthorized, "helper " + program + ": its output is no JSON");
  auto username = json::text(*value, "Username");
  auto secret = json::text(*value, "Secret");
  if (!username || !secret) return fail(Errc::unauthorized, "helper " + program + ": no login");
  Credentials out;
  if (*username == "<token>") {
    out.identity_token = *std::move(secret);
  } else {
    out.username = *std::move(username);
    out.password = *std::move(secret);
  }
  return std::optional(std::move(out));
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
    auto const text = base64_decode(packed);
    auto const colon = text ? text->find(':') : std::string::npos;
    if (colon == std::string::npos) return fail(Errc::corrupt, "an auth in auths is malformed");
    out.username = text->substr(0, colon);
    out.password = text->substr(colon + 1);
    while (out.password.ends_with('\0')) out.password.pop_back();
  }
  if (out == Credentials()) return std::optional<Credentials>();
  return std::optional(std::move(out));
}

}  // namespace detail

inline Result<std::string> read_password_file(std::string const& path) {
  auto const bytes = detail::read_small_file(path, 64 * 1024);
  if (!bytes) return fail(bytes.error());
  auto const text = as_text(*bytes);
  auto line = text.substr(0, text.find('\n'));
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.empty()) return fail(Errc::invalid_argument, path + ": its first line is empty");
  return std::string(line);
}

inline Result<std::optional<Credentials>> credentials_from(std::string_view config,
                                                           std::string_view registry,
                                                           std::string_view repository,
                                                           std::chrono::milliseconds helper_limit) {
  auto const value = json::parse(as_bytes(config), "config");
  if (!value) return fail(value.error());

  auto const helpers = json::text_map(*value, "credHelpers");
  if (!helpers) return fail(helpers.error());
  for (auto const& [host, name] : *helpers) {
    if (detail::auths_key(host) == registry) {
      return detail::ask_helper(name, registry, helper_limit);
    }
  }
  auto const store = json::text(*value, "credsStore");
  if (!store) return fail(store.error());
  if (!store->empty()) {
    auto found = detail::ask_helper(*store, registry, helper_limit);
    if (!found || *found) return found;
  }

  auto const* const auths = json::find(*value, "auths");
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

inline Result<std::optional<Credentials>> find_credentials(CredentialOptions const& options,
                                                           std::string const& registry,
                                                           std::string const& repository) {
  if (options.given) return options.given;
  for (auto const& path : options.config_files) {
    auto const bytes = detail::read_small_file(path, 1024 * 1024);
    if (!bytes) {
      auto const& code = bytes.error().code;
      if (code == std::errc::no_such_file_or_directory || code == std::errc::not_a_directory) {
        continue;
      }
      return fail(bytes.error());
    }
    auto found = credentials_from(as_text(*bytes), registry, repository, options.helper_limit);
    if (!found) return fail(std::move(found).error(), path);
    if (*found) return found;
  }
  return std::optional<Credentials>();
}

}  // namespace erofs_oci
