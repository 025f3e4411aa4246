// SPDX-License-Identifier: Apache-2.0
#include "config.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include <erofs_oci/core/text.hpp>
#include <erofs_oci/oci/toml.hpp>
#include <erofs_oci/posix/path.hpp>
#include <erofs_oci/posix/trusted_file.hpp>
#include <erofs_oci/posix/unix_socket.hpp>

namespace oci_snapshotter {

using erofs_oci::Errc;
using erofs_oci::fail;
using erofs_oci::Result;
using erofs_oci::TomlEntry;

namespace {

tl::unexpected<erofs_oci::Error> wrong(std::string sentence) {
  return tl::unexpected(erofs_oci::explain(Errc::invalid_argument, std::move(sentence)));
}

/// Takes a value; says what it should have been.
using Take = std::function<std::optional<std::string>(TomlEntry const&)>;

/// A text; an empty one only where that is the default.
Take text(std::string& out) {
  return [&out, may_be_empty = out.empty()](TomlEntry const& entry) -> std::optional<std::string> {
    if (entry.kind != TomlEntry::Kind::text) return "a text";
    if (entry.value.empty() && !may_be_empty) return "a text";
    out = entry.value;
    return std::nullopt;
  };
}

Take one_of(std::string& out, std::vector<std::string> choices) {
  return
      [&out, choices = std::move(choices)](TomlEntry const& entry) -> std::optional<std::string> {
        if (std::ranges::find(choices, entry.value) == choices.end()) {
          std::string all;
          for (auto const& choice : choices) all += (all.empty() ? "" : ", ") + choice;
          return "one of " + all;
        }
        out = entry.value;
        return std::nullopt;
      };
}

Take number(std::uint64_t least, std::uint64_t most, std::function<void(std::uint64_t)> set) {
  return [=](TomlEntry const& entry) -> std::optional<std::string> {
    auto const value = entry.kind == TomlEntry::Kind::integer
                           ? erofs_oci::whole_number<std::uint64_t>(entry.value)
                           : std::nullopt;
    if (!value || *value < least || *value > most) {
      return "a number from " + std::to_string(least) + " to " + std::to_string(most);
    }
    set(*value);
    return std::nullopt;
  };
}

Take boolean(std::function<void(bool)> set) {
  return [set = std::move(set)](TomlEntry const& entry) -> std::optional<std::string> {
    if (entry.kind != TomlEntry::Kind::boolean) return "true or false";
    set(entry.value == "true");
    return std::nullopt;
  };
}

Take list(std::vector<std::string>& out) {
  return [&out](TomlEntry const& entry) -> std::optional<std::string> {
    if (entry.kind == TomlEntry::Kind::array) return std::nullopt;  // its elements follow
    if (entry.kind != TomlEntry::Kind::text || entry.value.empty()) return "a list of texts";
    // The words are arguments of a program, which every user of the machine can see.
    if (erofs_oci::ascii_lower(entry.value).find("oci.password=") != std::string::npos) {
      return "without a password; oci.password_file names a file with it";
    }
    auto const chooses = [&](std::string_view word) { return entry.value.starts_with(word); };
    if (chooses("oci.first_layers") || chooses("oci.layer") || chooses("oci.blob") ||
        chooses("oci.index=")) {
      return "without words that choose layers or indexes";
    }
    out.push_back(entry.value);
    return std::nullopt;
  };
}

std::map<std::string, Take> takers(Config& config) {
  using std::chrono::seconds;
  constexpr std::uint64_t day = 86'400;
  std::map<std::string, Take> all;
  all["root"] = text(config.root);
  all["address"] = text(config.address);
  all["metrics.address"] = text(config.metrics);
  all["credentials.image_service"] = text(config.image_service);
  all["credentials.kubelet_config"] = text(config.kubelet_config);
  all["credentials.kubelet_plugins"] = text(config.kubelet_plugins);
  all["lazy.enabled"] = boolean([&](bool on) {
    config.lazy.never_because = on ? "" : "`lazy.enabled` is false in the configuration";
  });
  all["lazy.min_size"] =
      number(0, std::uint64_t{1} << 50, [&](std::uint64_t n) { config.lazy.min_size = n; });
  all["lazy.timeout"] = number(1, 60, [&](std::uint64_t n) { config.lazy.timeout = seconds(n); });
  all["lazy.index"] = one_of(config.tool.index, {"none", "signed"});
  all["mount.program"] = text(config.tool.program);
  all["mount.attach"] =
      one_of(config.tool.attach, {"auto", "netlink", "ioctl", "fuse-file", "fuse-tree"});
  all["mount.journal"] = text(config.tool.journal);
  all["mount.scope"] = one_of(config.tool.scope, {"auto", "none"});
  all["mount.options"] = list(config.tool.words);
  all["mount.timeout"] =
      number(1, day, [&](std::uint64_t n) { config.mount_timeout = seconds(n); });
  all["mount.unmount_after"] =
      number(0, day, [&](std::uint64_t n) { config.unmount_after = seconds(n); });
  return all;
}

}  // namespace

Result<Config> parse_config(std::string_view text, std::string_view name) {
  EROFS_OCI_TRY_ASSIGN(auto const entries, erofs_oci::parse_toml(text, name));
  Config config;
  auto const known = takers(config);
  for (auto const& entry : entries) {
    std::string key;
    for (auto const& part : entry.path) key += (key.empty() ? "" : ".") + part;
    auto const where = std::string(name) + ":" + std::to_string(entry.line) + ": " + key;
    auto found = known.find(key);
    // An element of a list has its number behind the list's key.
    if (found == known.end() && entry.path.size() > 1) {
      found = known.find(key.substr(0, key.rfind('.')));
      if (found != known.end() && found->first != "mount.options") found = known.end();
    }
    if (found == known.end()) {
      auto const is_table =
          entry.kind == TomlEntry::Kind::table &&
          (key == "lazy" || key == "mount" || key == "metrics" || key == "credentials");
      if (is_table) continue;
      return wrong(where + ": unknown key");
    }
    if (auto const wanted = found->second(entry)) {
      return wrong(where + ": must be " + *wanted);
    }
  }
  EROFS_OCI_TRY(check_config(config), std::string(name));
  return config;
}

Result<Config> read_config(std::string const& path) {
  auto const read = erofs_oci::read_trusted_file(path.empty() ? default_config : path);
  if (read) return parse_config(read->text, path.empty() ? default_config : path);
  auto const is_missing = read.error().code == std::errc::no_such_file_or_directory;
  if (path.empty() && is_missing) return Config{};
  return fail(read.error());
}

Result<void> check_config(Config const& config) {
  for (auto const& [name, path] :
       {std::pair("root", config.root), std::pair("address", config.address)}) {
    if (!erofs_oci::is_absolute_path(path)) {
      return wrong(std::string(name) + ": " + path + ": not absolute");
    }
  }
  // Both separate directories in the options of an overlay, where nothing can be escaped.
  if (config.root.find_first_of(":,\\") != std::string::npos) {
    return wrong("root: " + config.root + ": overlayfs takes no path with `:`, `,` or `\\`");
  }
  EROFS_OCI_TRY(erofs_oci::UnixAddress::at(config.address), "address");
  if (config.kubelet_config.empty() != config.kubelet_plugins.empty()) {
    return wrong("credentials: kubelet_config and kubelet_plugins are wanted both, or none");
  }
  return {};
}

}  // namespace oci_snapshotter
