// SPDX-License-Identifier: Apache-2.0
#include "image_metrics.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <utility>

#include <metrics.hpp>

#include "chain.hpp"

namespace oci_snapshotter {

using mount_oci::MetricLabels;
using mount_oci::MetricSample;

namespace {

std::string family(std::string_view name, std::string_view kind, std::string_view help,
                   std::vector<MetricSample> const& samples) {
  return mount_oci::metric_family("oci_snapshotter_" + std::string(name), kind, help, samples);
}

/// How many snapshots there are, of each kind.
std::string snapshot_metrics(std::vector<Snapshot> const& snapshots) {
  std::map<std::pair<std::string, std::string>, std::uint64_t> numbers;
  for (auto const* kind : {"active", "view"}) numbers[{kind, "unpacked"}] = 0;
  for (auto const* way : {"served", "unpacked"}) numbers[{"committed", way}] = 0;
  for (auto const& snapshot : snapshots) {
    auto const* const kind = snapshot.info.kind == Kind::active ? "active"
                             : snapshot.info.kind == Kind::view ? "view"
                                                                : "committed";
    ++numbers[{kind, snapshot.is_served() ? "served" : "unpacked"}];
  }
  std::vector<MetricSample> samples;
  for (auto const& [key, number] : numbers) {
    samples.push_back({{{"kind", key.first}, {"way", key.second}}, number});
  }
  return family("snapshots", "gauge", "Snapshots in the table.", samples);
}

/// Containers' snapshots by the image that the first served one below them is of.
std::map<std::string, std::uint64_t> users_of_images(std::vector<Snapshot> const& snapshots) {
  std::map<std::string, Snapshot const*> by_name;
  for (auto const& snapshot : snapshots) by_name[snapshot.info.name] = &snapshot;
  std::map<std::string, std::uint64_t> users;
  for (auto const& snapshot : snapshots) {
    if (snapshot.info.kind == Kind::committed) continue;
    auto below = by_name.find(snapshot.info.parent);
    while (below != by_name.end() && !below->second->is_served()) {
      below = by_name.find(below->second->info.parent);
    }
    if (below == by_name.end() || below->second->manifests.empty()) continue;
    ++users[below->second->manifests.front()];
  }
  return users;
}

std::string image_metrics(MetricsInput const& input) {
  auto users = users_of_images(input.snapshots);
  std::vector<MetricSample> layers;
  std::vector<MetricSample> used;
  std::vector<MetricSample> mounts;
  std::vector<MetricSample> failures;
  std::vector<MetricSample> times;
  auto lazy = input.decisions.by_image;
  for (auto const& image : input.images) {
    MetricLabels const labels{{"image", image.reference()}};
    auto const count = input.counts.find(image.reference());
    auto const done = count == input.counts.end() ? ImageMounts::Count() : count->second;
    lazy[image.reference()] = true;
    layers.push_back({labels, image.layers.size()});
    used.push_back({labels, users[image.manifest]});
    mounts.push_back({labels, done.mounts});
    failures.push_back({labels, done.failures});
    times.push_back({labels, static_cast<std::uint64_t>(done.time.count())});
  }
  std::vector<MetricSample> decided;
  for (auto const& [image, is_served] : lazy) {
    decided.push_back({{{"image", image}}, is_served ? std::uint64_t{1} : 0});
  }
  return family("image_lazy", "gauge",
                "1: the image is served; 0: it was left to containerd within ten minutes.",
                decided) +
         family("image_layers", "gauge", "Layers of a served image.", layers) +
         family("image_users", "gauge", "Snapshots of containers that stand on the image.", used) +
         family("image_mounts_total", "counter", "Mounts made or found for the image.", mounts) +
         family("image_mount_failures_total", "counter", "Mounts that failed.", failures) +
         family("image_mount_milliseconds_total", "counter",
                "Time that mounts took, with the indexes that they waited for.", times);
}

/// A number of each mount, under a name.
struct MountNumber {
  std::string_view name;
  std::string_view kind;
  std::string_view help;
  std::function<std::uint64_t(MountStatus const&)> value;
};

std::string mount_metrics(MetricsInput const& input) {
  std::map<std::string, MetricLabels> labels;  // by the mount point
  for (auto const& image : input.images) {
    for (std::size_t depth = 1; depth <= image.layers.size(); ++depth) {
      auto const name = stack_name(std::span(image.layers).first(depth));
      labels.try_emplace(
          input.directory + "/" + name + "/fs",
          MetricLabels{
              {"image", image.reference()}, {"layers", std::to_string(depth)}, {"stack", name}});
    }
  }
  MountNumber const numbers[] = {
      {"mount_served", "gauge", "1: the processes that serve the mount live.",
       [](auto const& mount) { return mount.is_served ? std::uint64_t{1} : 0; }},
      {"mount_requests_total", "counter", "Requests of the kernel.",
       std::mem_fn(&MountStatus::requests)},
      {"mount_read_bytes_total", "counter", "Bytes read of the mount.",
       std::mem_fn(&MountStatus::bytes)},
      {"mount_errors_total", "counter", "Requests that failed.", std::mem_fn(&MountStatus::errors)},
      {"mount_worker_restarts_total", "counter", "Workers that another one took the place of.",
       std::mem_fn(&MountStatus::restarts)},
      {"mount_memory_bytes", "gauge", "Memory of the mount's caches.",
       std::mem_fn(&MountStatus::memory)},
  };
  std::string text = family("mount_status_up", "gauge", "1: mount-oci tells of its mounts.",
                            {{{}, input.mounts ? std::uint64_t{1} : 0}});
  if (!input.mounts) return text;
  for (auto const& [name, kind, help, value] : numbers) {
    std::vector<MetricSample> samples;
    for (auto const& mount : *input.mounts) {
      auto const found = labels.find(mount.mount_point);
      if (found != labels.end()) samples.push_back({found->second, value(mount)});
    }
    text += family(name, kind, help, samples);
  }
  return text;
}

}  // namespace

std::string metrics_of(MetricsInput const& input) {
  return snapshot_metrics(input.snapshots) +
         family("images_decided_total", "counter", "Decisions to serve an image, or not to.",
                {{{{"lazy", "true"}}, input.decisions.served},
                 {{{"lazy", "false"}}, input.decisions.unpacked}}) +
         image_metrics(input) + mount_metrics(input);
}

}  // namespace oci_snapshotter
