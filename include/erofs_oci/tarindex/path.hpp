// SPDX-License-Identifier: Apache-2.0
/// @file
/// Paths of archive members: normalised, and followed through a tree.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <ranges>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/tar/entry.hpp>

namespace erofs_oci::tarindex {

/// Longest name of a file, in bytes.
inline constexpr std::size_t max_name_length = 255;

/// Symbolic links followed on one path at most, as the kernel does.
inline constexpr unsigned max_links_followed = 40;

/// Deepest directory: as deep as the longest path is. Symbolic links could lead further down.
inline constexpr std::size_t max_depth = 2048;

/// A path as its components: never empty ones, `.` or `..`; none at all for the root.
using Components = std::vector<std::string_view>;

/// Cuts a path at its slashes.
[[nodiscard]] inline Components split(std::string_view path) {
  Components parts;
  while (!path.empty()) {
    auto const slash = std::min(path.find('/'), path.size());
    if (auto const part = path.substr(0, slash); !part.empty() && part != ".") {
      parts.push_back(part);
    }
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return parts;
}

/// A member's path, made absolute: a `..` takes back the component before it and stops at the root,
/// as all OCI tools clean a name before they look at the file system. Borrows from `path`.
/// @error{Errc::unsupported, a component is longer than `max_name_length`}
/// @error{Errc::corrupt, a component holds a NUL}
[[nodiscard]] inline Result<Components> normalised(std::string_view path) {
  Components parts;
  for (auto const part : split(path)) {
    if (part == "..") {
      if (!parts.empty()) parts.pop_back();
      continue;
    }
    if (part.size() > max_name_length) {
      return fail(Errc::unsupported,
                  "name " + tar::printable(part) + " of " + std::to_string(part.size()) + " bytes");
    }
    if (part.find('\0') != std::string_view::npos) {
      return fail(Errc::corrupt, "name " + tar::printable(part) + " holds a NUL");
    }
    parts.push_back(part);
  }
  return parts;
}

/// What walk() does about a directory that is not there.
enum class Missing : std::uint8_t {
  create,  ///< makes an implied directory
  leave,   ///< yields none
};

/// The directory that `path` leads to from the root. Symbolic links on the way are followed inside
/// the tree, as `chroot` would: `/` and `..` never leave it. Yields none only for Missing::leave.
/// @error{Errc::corrupt, something on the way is no directory\, or links go in a circle}
/// @error{Errc::unsupported, a directory to be made has a name too long or is deeper than
/// `max_depth`}
[[nodiscard]] inline Result<std::optional<erofs::NodeId>> walk(erofs::Tree& tree,
                                                               Components const& path,
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
      if (name.size() > max_name_length || trail.size() > max_depth) {
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

}  // namespace erofs_oci::tarindex
