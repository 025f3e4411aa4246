// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tarindex/path.hpp only declares.
#pragma once

#include <algorithm>
#include <optional>
#include <ranges>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/tree_rules.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tarindex/path.hpp>

namespace erofs_oci::tarindex {

EROFS_OCI_BODY Components split(std::string_view path) {
  Components parts;
  while (!path.empty()) {
    if (auto const part = take_part(path, '/'); !part.empty() && part != ".") {
      parts.push_back(part);
    }
  }
  return parts;
}

EROFS_OCI_BODY Components normalised(std::string_view path) {
  Components parts;
  for (auto const part : split(path)) {
    if (part == "..") {
      if (!parts.empty()) parts.pop_back();
      continue;
    }
    parts.push_back(part);
  }
  return parts;
}

EROFS_OCI_BODY Result<std::optional<erofs::NodeId>> walk(erofs::Tree& tree, Components const& path,
                                                         Missing missing) {
  std::vector<erofs::NodeId> trail{erofs::root_id};
  Components todo(path.rbegin(), path.rend());  // the next one is at the back
  unsigned links = 0;
  while (!todo.empty()) {
    auto const name = todo.back();
    todo.pop_back();
    if (name == "..") {
      if (trail.size() > 1) trail.pop_back();
      continue;
    }
    auto const* const found = tree.find(trail.back(), name);
    if (found == nullptr) {
      if (missing == Missing::leave) return std::optional<erofs::NodeId>{};
      if (!erofs::is_valid_name(name) || trail.size() > max_depth) {
        return fail(Errc::unsupported, "directory " + tar::printable(name) + " of " +
                                           std::to_string(name.size()) + " bytes at depth " +
                                           std::to_string(trail.size()));
      }
      auto directory = erofs::make_node(erofs::Kind::directory);
      directory.directory()->implied = true;
      trail.push_back(tree.add(trail.back(), std::string(name), std::move(directory)));
      continue;
    }
    auto const& node = tree[*found];
    if (node.kind == erofs::Kind::directory) {
      trail.push_back(*found);
      continue;
    }
    if (node.kind != erofs::Kind::symlink) {
      if (missing == Missing::leave) return std::optional<erofs::NodeId>{};
      return fail(Errc::corrupt, tar::printable(name) + " is not a directory");
    }
    if (++links > max_links_followed) {
      return fail(Errc::corrupt, tar::printable(name) + ": too many symbolic links");
    }
    std::string_view const target = node.symlink()->target;
    if (target.starts_with('/')) trail.resize(1);
    for (auto const part : std::views::reverse(split(target))) todo.push_back(part);
  }
  return std::optional(trail.back());
}

EROFS_OCI_BODY std::optional<Place> find_place(erofs::Tree& tree, std::string_view path,
                                               Missing missing) {
  auto parts = normalised(path);
  if (parts.empty()) return std::nullopt;
  std::string name(parts.back());
  parts.pop_back();
  auto const parent = walk(tree, parts, missing);
  if (!parent || !*parent) return std::nullopt;
  return Place{**parent, std::move(name)};
}

}  // namespace erofs_oci::tarindex
