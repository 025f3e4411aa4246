// SPDX-License-Identifier: Apache-2.0
/// @file
/// What containerd's configuration says of a snapshotter.
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/oci/toml.hpp>

namespace oci_snapshotter {

/// A version of containerd.
struct ContainerdVersion {
  unsigned major = 0;
  unsigned minor = 0;
  unsigned patch = 0;

  /// Finds it in what `containerd --version` prints: the first word that begins as N.N.N, be there
  /// a `v` in front and anything behind.
  [[nodiscard]] static std::optional<ContainerdVersion> find(std::string_view text);

  [[nodiscard]] std::string text() const;

  friend auto operator<=>(ContainerdVersion const&, ContainerdVersion const&) = default;
};

/// A proxy plugin of containerd's.
struct ProxyPlugin {
  std::string name;
  std::string type;
  std::string address;
  std::string root;            ///< exports.root
  std::string enables_labels;  ///< exports.enable_remote_snapshot_annotations
  bool has_remap_ids = false;  ///< among its capabilities
};

/// containerd's configuration, as far as it is about snapshotters. What a key is called depends on
/// the version; here are all names.
struct ContainerdConfig {
  unsigned version = 2;  ///< of the file; 3 is of containerd 2.0 and later
  std::string root = "/var/lib/containerd";
  std::vector<ProxyPlugin> plugins{};
  std::vector<std::string> disabled{};    ///< disabled_plugins
  std::vector<std::string> imports{};     ///< other files, which are not read
  std::string snapshotter{};              ///< of CRI; empty: the key is not there
  bool disables_labels = true;            ///< of CRI: disable_snapshot_annotations
  bool pulls_locally = false;             ///< of CRI: use_local_image_pull
  std::vector<std::string> unpacks_to{};  ///< of the transfer service: snapshotters

  /// @param name  of the text, for messages
  /// @error{as erofs_oci::parse_toml(), as there}
  [[nodiscard]] static erofs_oci::Result<ContainerdConfig> parse(std::string_view text,
                                                                 std::string_view name);
};

}  // namespace oci_snapshotter
