// SPDX-License-Identifier: Apache-2.0
#include "config_file.hpp"

#include <algorithm>
#include <span>
#include <system_error>
#include <utility>

#include <sys/stat.h>

#include <erofs_oci/core/text.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/oci/toml.hpp>
#include <erofs_oci/posix/trusted_file.hpp>

#include "parsing.hpp"

namespace mount_oci {
namespace {

using erofs_oci::TomlEntry;

/// The registry of a `[registry."HOST"]` table as Reference::registry has it, or nothing.
std::optional<std::string> registry_of(std::string_view key) {
  if (!erofs_oci::is_registry(key)) return std::nullopt;
  auto const name = erofs_oci::Reference::parse(std::string(key) + "/a/b");
  // A host without a dot or port is a part of the repository there.
  return name && name->repository == "a/b" ? name->registry : erofs_oci::ascii_lower(key);
}

}  // namespace

tl::expected<std::vector<ConfigWord>, UsageError> parse_config(std::string_view text,
                                                               std::string_view name) {
  auto const entries = erofs_oci::parse_toml(text, name);
  if (!entries) return usage(entries.error().context);
  std::vector<ConfigWord> out;
  std::vector<std::string> array;  // keys of the array that the next entries may be in
  for (auto const& entry : *entries) {
    ConfigWord word;
    word.place = std::string(name) + ":" + std::to_string(entry.line) + ": ";
    auto keys = std::span(entry.path);
    auto const in_array = !array.empty() && keys.size() == array.size() + 1 &&
                          std::ranges::equal(keys.first(array.size()), array);
    if (in_array) keys = keys.first(array.size());
    if (keys.front() == "registry" && keys.size() > 1) {
      auto const registry = registry_of(keys[1]);
      if (!registry) return usage(word.place + "registry: not HOST or HOST:PORT");
      word.registry = *registry;
      keys = keys.subspan(2);
    }
    if (entry.kind == TomlEntry::Kind::table && !in_array) continue;
    for (auto const& key : keys) word.word.key += (word.word.key.empty() ? "" : ".") + key;
    word.word.raw = word.word.key;
    switch (entry.kind) {
      case TomlEntry::Kind::array:
        if (in_array) return usage(word.place + word.word.key + ": an array in an array");
        array = entry.path;
        continue;
      case TomlEntry::Kind::boolean: word.is_switch = true; [[fallthrough]];
      case TomlEntry::Kind::text:
      case TomlEntry::Kind::integer:
        word.word.value = entry.value;
        word.word.has_value = true;
        break;
      default:
        return usage(word.place + word.word.key + ": neither a text, a number, true nor false");
    }
    out.push_back(std::move(word));
  }
  return out;
}

tl::expected<std::vector<ConfigWord>, UsageError> read_config(std::string const& chosen) {
  if (chosen == "none") return {};
  auto const path = chosen.empty() ? std::string(default_config) : chosen;
  auto const read = erofs_oci::read_trusted_file(path);
  if (!read) {
    auto const missing = read.error().code == std::errc::no_such_file_or_directory;
    if (missing && chosen.empty()) return {};
    return usage("--config: " + read.error().message());
  }
  auto words = parse_config(read->text, path);
  if (!words || (read->mode & (S_IRGRP | S_IROTH)) == 0) return words;
  auto const secret = std::ranges::find(
      *words, "oci.password", [](auto const& word) { return std::string_view(word.word.key); });
  if (secret == words->end()) return words;
  return usage(secret->place +
               "oci.password: other users can read this file; use oci.password_file, or chmod 600");
}

}  // namespace mount_oci
