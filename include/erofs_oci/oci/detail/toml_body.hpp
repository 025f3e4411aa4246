// SPDX-License-Identifier: Apache-2.0
/// @file
/// What oci/toml.hpp only declares.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <toml++/toml.h>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/oci/toml.hpp>

namespace erofs_oci {
namespace detail {

struct PlacedTomlEntry {
  toml::source_position at;
  TomlEntry entry;
};

inline void list_toml(toml::node const& node, toml::source_position at,
                      std::vector<std::string> const& path, std::vector<PlacedTomlEntry>& out) {
  using Kind = TomlEntry::Kind;
  TomlEntry entry{path, Kind::other, {}, at.line};
  if (node.is_table()) entry.kind = Kind::table;
  if (node.is_array()) entry.kind = Kind::array;
  if (auto const* const text = node.as_string()) {
    entry.kind = Kind::text;
    entry.value = text->get();
  } else if (auto const* const flag = node.as_boolean()) {
    entry.kind = Kind::boolean;
    entry.value = flag->get() ? "true" : "false";
  } else if (auto const* const number = node.as_integer()) {
    entry.kind = Kind::integer;
    entry.value = std::to_string(number->get());
  }
  if (!path.empty()) out.push_back({at, std::move(entry)});
  auto inner = path;
  inner.emplace_back();
  if (auto const* const table = node.as_table()) {
    for (auto const& [key, value] : *table) {
      inner.back() = key.str();
      list_toml(value, key.source().begin, inner, out);
    }
  } else if (auto const* const array = node.as_array()) {
    for (std::size_t i = 0; i < array->size(); ++i) {
      inner.back() = std::to_string(i);
      list_toml((*array)[i], (*array)[i].source().begin, inner, out);
    }
  }
}

}  // namespace detail

EROFS_OCI_BODY Result<std::vector<TomlEntry>> parse_toml(std::string_view text,
                                                         std::string_view name) {
  constexpr std::size_t longest = 1024 * 1024;
  if (text.size() > longest) return fail(Errc::corrupt, std::string(name) + ": too long");
  auto const refuse = [&](toml::parse_error const& error) {
    return fail(Errc::corrupt, std::string(name) + ":" + std::to_string(error.source().begin.line) +
                                   ": not TOML");  // its own words may quote a secret
  };
  std::vector<detail::PlacedTomlEntry> found;
#if TOML_EXCEPTIONS
  try {
    detail::list_toml(toml::parse(text), {}, {}, found);
  } catch (toml::parse_error const& error) {
    return refuse(error);
  }
#else
  auto const parsed = toml::parse(text);
  if (!parsed) return refuse(parsed.error());
  detail::list_toml(parsed.table(), {}, {}, found);
#endif
  // Those at one place, as the tables of a dotted key, stay in their order.
  std::multimap<std::pair<std::size_t, std::size_t>, TomlEntry> placed;
  for (auto& one : found)
    placed.emplace(std::pair(one.at.line, one.at.column), std::move(one.entry));
  std::vector<TomlEntry> out;
  out.reserve(placed.size());
  for (auto& [at, entry] : placed) out.push_back(std::move(entry));
  return out;
}

}  // namespace erofs_oci
