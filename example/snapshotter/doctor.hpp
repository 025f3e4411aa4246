// SPDX-License-Identifier: Apache-2.0
/// @file
/// What is wrong with the machine around the snapshotter, and what to do about it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/result.hpp>

#include <finding.hpp>

#include "config.hpp"
#include "containerd_config.hpp"

namespace oci_snapshotter {

/// With a warning containers run, but something is lost; if something has failed, images are not
/// served.
using mount_oci::Finding;

/// What to write into containerd's configuration file.
/// @param version  empty: of the oldest, which all later ones still read but for one setting
/// @param name     of the plugin
[[nodiscard]] std::string containerd_snippet(std::optional<ContainerdVersion> const& version,
                                             std::string const& name, Config const& config);

/// What containerd's configuration makes of the snapshotter. Looks at directories, and changes
/// nothing.
[[nodiscard]] std::vector<Finding> check_containerd(ContainerdConfig const& containerd,
                                                    std::optional<ContainerdVersion> const& version,
                                                    Config const& config);

/// What `systemctl show` prints of the snapshotter's unit, properties LoadState, Before and
/// KillMode.
[[nodiscard]] std::vector<Finding> check_unit(std::string_view shown);

/// How to look at the machine.
struct DoctorOptions {
  std::string program = "containerd";  ///< asked for its version and settings
  std::string containerd_config = "/etc/containerd/config.toml";
  std::function<erofs_oci::Result<void>()> ask{};  ///< whether the snapshotter answers
  std::string systemd = "/run/systemd/system";     ///< there while systemd runs
};

/// Looks at all. Mounts an empty file system below the root directory for a moment, and changes
/// nothing else. Blocks, for some seconds at most.
[[nodiscard]] std::vector<Finding> diagnose(Config const& config, DoctorOptions const& options);

/// A line for each finding and the lines of its advice, or a JSON object of them.
[[nodiscard]] std::string findings_text(std::vector<Finding> const& findings);
[[nodiscard]] std::string findings_json(std::vector<Finding> const& findings);

}  // namespace oci_snapshotter
