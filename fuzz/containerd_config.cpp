// SPDX-License-Identifier: Apache-2.0
// Any text is refused, or is a configuration of containerd's whose plugins each have their name
// once; and any text has a version of containerd's that prints and reads as itself, or none.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <containerd_config.hpp>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  using oci_snapshotter::ContainerdConfig;
  using oci_snapshotter::ContainerdVersion;
  auto const text = std::string_view(reinterpret_cast<char const*>(data), size);
  if (auto const version = ContainerdVersion::find(text)) {
    if (ContainerdVersion::find("containerd x v" + version->text()) != version) std::abort();
  }
  auto const config = ContainerdConfig::parse(text, "name");
  if (!config) return 0;
  for (auto const& plugin : config->plugins) {
    if (std::ranges::count(config->plugins, plugin.name, &oci_snapshotter::ProxyPlugin::name) !=
        1) {
      std::abort();
    }
  }
  return 0;
}
