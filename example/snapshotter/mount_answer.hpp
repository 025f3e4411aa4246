// SPDX-License-Identifier: Apache-2.0
/// @file
/// What containerd is to mount for a snapshot.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "snapshot.hpp"

namespace oci_snapshotter {

/// One mount, as containerd makes it.
struct Mount {
  std::string type;
  std::string source;
  std::vector<std::string> options;

  friend bool operator==(Mount const&, Mount const&) = default;
};

/// The directories of a snapshot that is to be mounted.
struct MountParts {
  Kind kind = Kind::active;            ///< active or view
  std::vector<std::string> lower{};    ///< those of its parents, from the top down
  std::string upper{};                 ///< its own
  std::string work{};                  ///< of overlayfs
  std::vector<std::string> mapping{};  ///< options by which containerd maps owners; mostly none
};

/// @param overlay_options  that every overlay has on this machine
[[nodiscard]] inline Mount mount_of(MountParts const& parts,
                                    std::vector<std::string> const& overlay_options) {
  auto const is_view = parts.kind == Kind::view;
  auto options = parts.mapping;
  if (parts.lower.empty()) {
    options.insert(options.end(), {is_view ? "ro" : "rw", "rbind"});
    return {"bind", parts.upper, std::move(options)};
  }
  // An overlay needs two lower directories, or an upper one.
  if (is_view && parts.lower.size() == 1) {
    options.insert(options.end(), {"ro", "rbind"});
    return {"bind", parts.lower[0], std::move(options)};
  }
  options.insert(options.end(), overlay_options.begin(), overlay_options.end());
  if (!is_view) {
    options.push_back("workdir=" + parts.work);
    options.push_back("upperdir=" + parts.upper);
  }
  std::string lower;
  for (auto const& path : parts.lower) lower += (lower.empty() ? "" : ":") + path;
  options.push_back("lowerdir=" + std::move(lower));
  return {"overlay", "overlay", std::move(options)};
}

/// The options that every overlay needs here.
[[nodiscard]] std::vector<std::string> overlay_options();

}  // namespace oci_snapshotter
