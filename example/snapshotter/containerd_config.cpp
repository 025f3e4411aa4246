// SPDX-License-Identifier: Apache-2.0
#include "containerd_config.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <utility>

#include <erofs_oci/core/text.hpp>

namespace oci_snapshotter {

using erofs_oci::Result;
using erofs_oci::TomlEntry;

namespace {

using Path = std::span<std::string const>;

std::optional<ContainerdVersion> version_at_front(std::string_view text) {
  std::array<unsigned, 3> parts{};
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i != 0 && !erofs_oci::take_char(text, '.')) return std::nullopt;
    auto const part = erofs_oci::take_number<unsigned>(text);
    if (!part) return std::nullopt;
    parts[i] = *part;
  }
  return ContainerdVersion{parts[0], parts[1], parts[2]};
}

ProxyPlugin& plugin_called(ContainerdConfig& config, std::string const& name) {
  auto const found = std::ranges::find(config.plugins, name, &ProxyPlugin::name);
  if (found != config.plugins.end()) return *found;
  config.plugins.push_back({name, {}, {}, {}, {}, false});
  return config.plugins.back();
}

/// @param rest  behind the plugin's name; of a capability with its place in the list
void take_plugin(ProxyPlugin& plugin, Path rest, std::string const& value) {
  if (rest.empty()) return;
  if (rest[0] == "type") plugin.type = value;
  if (rest[0] == "address") plugin.address = value;
  if (rest[0] == "capabilities" && value == "remap-ids") plugin.has_remap_ids = true;
  if (rest.size() != 2 || rest[0] != "exports") return;
  if (rest[1] == "root") plugin.root = value;
  if (rest[1] == "enable_remote_snapshot_annotations") plugin.enables_labels = value;
}

/// The keys of CRI are called the same in two tables.
void take_cri(ContainerdConfig& config, std::string const& key, TomlEntry const& entry) {
  if (key == "snapshotter") config.snapshotter = entry.value;
  if (key == "disable_snapshot_annotations") config.disables_labels = entry.value == "true";
  if (key == "use_local_image_pull") config.pulls_locally = entry.value == "true";
}

void take_entry(ContainerdConfig& config, TomlEntry const& entry) {
  Path const path(entry.path);
  auto const is = [&](std::initializer_list<std::string_view> front, std::size_t size) {
    return path.size() == size && std::ranges::equal(front, path.first(front.size()));
  };
  if (is({"version"}, 1)) {
    config.version = erofs_oci::whole_number<unsigned>(entry.value).value_or(config.version);
  }
  if (is({"root"}, 1)) config.root = entry.value;
  if (is({"disabled_plugins"}, 2)) config.disabled.push_back(entry.value);
  if (is({"imports"}, 2)) config.imports.push_back(entry.value);
  if (path.size() >= 2 && path[0] == "proxy_plugins") {
    take_plugin(plugin_called(config, path[1]), path.subspan(2), entry.value);
  }
  if (is({"plugins", "io.containerd.grpc.v1.cri", "containerd"}, 4))
    take_cri(config, path[3], entry);
  if (is({"plugins", "io.containerd.cri.v1.images"}, 3)) take_cri(config, path[2], entry);
  if (is({"plugins", "io.containerd.transfer.v1.local", "unpack_config"}, 5) &&
      path[4] == "snapshotter") {
    config.unpacks_to.push_back(entry.value);
  }
}

}  // namespace

std::optional<ContainerdVersion> ContainerdVersion::find(std::string_view text) {
  while (!text.empty()) {
    auto word = erofs_oci::take_part(text, ' ');
    if (word.starts_with('v')) word.remove_prefix(1);
    if (auto const found = version_at_front(word)) return found;
  }
  return std::nullopt;
}

std::string ContainerdVersion::text() const {
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

Result<ContainerdConfig> ContainerdConfig::parse(std::string_view text, std::string_view name) {
  EROFS_OCI_TRY_ASSIGN(auto const entries, erofs_oci::parse_toml(text, name));
  ContainerdConfig config;
  for (auto const& entry : entries) take_entry(config, entry);
  return config;
}

}  // namespace oci_snapshotter
