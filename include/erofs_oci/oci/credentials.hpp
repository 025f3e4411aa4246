// SPDX-License-Identifier: Apache-2.0
/// @file
/// Finding credentials: Docker's config.json, containers' auth.json, credential helpers.
#pragma once

#include <chrono>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/oci/auth.hpp>

namespace erofs_oci {

/// Credentials that the user gave for one registry. No other one is ever sent them, a mirror of
/// that registry included.
struct RegistryLogin {
  std::string registry{};  ///< `host[:port]`, as Reference::registry has it
  Credentials credentials{};
};

/// Where credentials are looked for. The first place that has some wins.
struct CredentialOptions {
  std::optional<RegistryLogin> given{};            ///< for its registry, nothing else is read
  std::vector<std::string> config_files{};         ///< in order; missing ones are skipped
  std::chrono::milliseconds helper_limit{10'000};  ///< for one helper. Default: 10 s
};

/// The files that others read, in order: `$DOCKER_CONFIG/config.json`, else
/// `$HOME/.docker/config.json`; `$REGISTRY_AUTH_FILE`; `$XDG_RUNTIME_DIR/containers/auth.json`.
/// Under sudo and mount(8), HOME is root's.
/// @param get  finds a variable, as std::getenv does. Default: in this process's environment
template <class Get = decltype(&std::getenv)>
[[nodiscard]] std::vector<std::string> default_config_files(Get const& get = &std::getenv) {
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

/// What credential helpers are asked for: a registry as Reference::registry has it, but Docker Hub
/// by the name that config files and helpers have for it.
[[nodiscard]] std::string_view helper_server(std::string_view registry);

/// A login from base64 of `USERNAME:PASSWORD`, as `auth` of config files has it; NULs at its end
/// are left out. Empty: it is none.
[[nodiscard]] std::optional<Credentials> packed_login(std::string_view packed);

/// A password from a file: its first line.
/// @error{Errc::invalid_argument, its first line is empty}
/// @error{as read_trusted_file(), as there}
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
[[nodiscard]] CredentialLookup credential_lookup(CredentialOptions options);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/oci/detail/credentials_body.hpp>
#endif
