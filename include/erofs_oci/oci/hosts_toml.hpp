// SPDX-License-Identifier: Apache-2.0
/// @file
/// hosts.toml of containerd: the hosts that a registry's images are pulled from.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/oci/registry_host.hpp>

namespace erofs_oci {

/// What a hosts.toml says.
struct HostsFile {
  std::vector<RegistryHost> mirrors{};   ///< its `host` tables, in order
  std::optional<RegistryHost> server{};  ///< asked last; none: the registry itself
  std::vector<std::string> warnings{};   ///< what is dangerous or ignored, "NAME:LINE: ..."

  friend bool operator==(HostsFile const&, HostsFile const&) = default;
};

/// Reads the text of a hosts.toml. Does no I/O. Keys that are not known are ignored with a warning.
/// @param name       of the file, for messages
/// @param directory  absolute; what the file's relative paths are relative to
/// @param registry   `host[:port]`, whose file it is: settings at the top without `server` are its
/// @spec{containerd 1.7, docs/hosts.md}
/// @error{Errc::corrupt, it is no TOML\, or a value is not what its key needs}
[[nodiscard]] Result<HostsFile> parse_hosts_toml(std::string_view text, std::string_view name,
                                                 std::string_view directory,
                                                 std::string_view registry);

/// Reads hosts.toml for a registry, or docker's certificates (`*.crt`, and `*.cert` with `*.key`),
/// from the first of these directories that exists: in each of `roots`, in order, `HOST_PORT_`,
/// `HOST:PORT`, `_default`.
/// @param roots     absolute, as `config_path` of containerd: "/etc/containerd/certs.d"
/// @param registry  as Reference::registry; Docker Hub's directory is `docker.io`
/// @return none if there is no such directory
/// @error{as parse_hosts_toml(), as there}
/// @error{an errno, the file cannot be read}
[[nodiscard]] Result<std::optional<HostsFile>> find_hosts(std::vector<std::string> const& roots,
                                                          std::string_view registry);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/oci/detail/hosts_toml_body.hpp>
#endif
