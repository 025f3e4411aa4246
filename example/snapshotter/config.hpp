// SPDX-License-Identifier: Apache-2.0
/// @file
/// The snapshotter's configuration.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include <erofs_oci/core/result.hpp>

#include "lazy_policy.hpp"
#include "mount_tool.hpp"

namespace oci_snapshotter {

/// Where the configuration is, unless the command line says so.
inline constexpr char const* default_config = "/etc/oci-snapshotter.toml";

/// What config.toml and the command line say.
struct Config {
  std::string root = "/var/lib/oci-snapshotter";                      ///< absolute; what is kept
  std::string address = "/run/oci-snapshotter/oci-snapshotter.sock";  ///< absolute; a unix socket
  std::string metrics{};  ///< HOST:PORT of the loopback interface, or a socket's path; empty: none
  std::string image_service{};  ///< containerd's socket, to hand kubelet's calls on to; empty: none
  std::string kubelet_config{};   ///< kubelet's CredentialProviderConfig; empty: none
  std::string kubelet_plugins{};  ///< directory of those providers' programs
  LazyPolicy::Options lazy{};
  MountToolOptions tool{};
  std::chrono::seconds mount_timeout{110};  ///< for calls whose client sets no deadline
  std::chrono::seconds unmount_after{60};   ///< since a mount's last user
};

/// @param name  of the text, for messages
/// @error{Errc::corrupt, it is no TOML}
/// @error{Errc::invalid_argument, a key that nobody knows, or a value that it cannot have}
[[nodiscard]] erofs_oci::Result<Config> parse_config(std::string_view text, std::string_view name);

/// Reads a file that nobody else may have written.
/// @param path  empty: default_config, if it is there
/// @error{as erofs_oci::read_trusted_file() and parse_config(), as there}
[[nodiscard]] erofs_oci::Result<Config> read_config(std::string const& path);

/// @error{Errc::invalid_argument, a path that overlayfs or sockets cannot have}
[[nodiscard]] erofs_oci::Result<void> check_config(Config const& config);

}  // namespace oci_snapshotter
