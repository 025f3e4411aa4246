// SPDX-License-Identifier: Apache-2.0
/// @file
/// What is known of images and their mounts, as a text for Prometheus.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <erofs_oci/core/result.hpp>

#include "image_mounts.hpp"
#include "lazy_policy.hpp"
#include "mount_tool.hpp"
#include "snapshot.hpp"

namespace oci_snapshotter {

/// What the numbers are made of.
struct MetricsInput {
  std::vector<Snapshot> snapshots{};
  std::vector<ImageFacts> images{};  ///< that are served
  std::map<std::string, ImageMounts::Count> counts{};
  LazyPolicy::Decisions decisions{};
  Result<std::vector<MountStatus>> mounts{};  ///< of the tool's journal, also those of others
  std::string directory{};                    ///< where the stacks are mounted
};

/// The text of all metrics. doc/snapshotter.md has a table of them.
[[nodiscard]] std::string metrics_of(MetricsInput const& input);

}  // namespace oci_snapshotter
