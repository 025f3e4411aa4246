// SPDX-License-Identifier: Apache-2.0
/// @file
/// Paths of archive members: normalised, and followed through a tree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/tree.hpp>

namespace erofs_oci::tarindex {

/// Symbolic links followed on one path at most, as the kernel does.
inline constexpr unsigned max_links_followed = 40;

/// Deepest directory: as deep as the longest path is. Symbolic links could lead further down.
inline constexpr std::size_t max_depth = 2048;

/// A path as its components: never empty ones, `.` or `..`; none at all for the root.
using Components = std::vector<std::string_view>;

/// Cuts a path at its slashes.
[[nodiscard]] Components split(std::string_view path);

/// A member's path, made absolute: a `..` takes back the component before it and stops at the root,
/// as all OCI tools clean a name before they look at the file system. Borrows from `path`.
[[nodiscard]] Components normalised(std::string_view path);

/// What walk() does if a directory is missing.
enum class Missing : std::uint8_t {
  create,  ///< makes an implied directory
  leave,   ///< yields none
};

/// The directory that `path` leads to from the root. Symbolic links on the way are followed inside
/// the tree, as `chroot` would: `/` and `..` never leave it. Yields none only for Missing::leave.
/// @error{Errc::corrupt, something on the way is no directory\, or links go in a circle}
/// @error{Errc::unsupported, a directory to be made has a name that no directory can have\, or is
/// deeper than `max_depth`}
[[nodiscard]] Result<std::optional<erofs::NodeId>> walk(erofs::Tree& tree, Components const& path,
                                                        Missing missing);

/// Where an entry is or would be: a directory and a name in it.
struct Place {
  erofs::NodeId parent;
  std::string name;

  friend auto operator<=>(Place const&, Place const&) = default;
};

/// Where a member's path leads: walk() to the directory that it is in. Empty for the root, and if
/// walk() yields none or fails.
[[nodiscard]] std::optional<Place> find_place(erofs::Tree& tree, std::string_view path,
                                              Missing missing);

}  // namespace erofs_oci::tarindex

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tarindex/detail/path_body.hpp>
#endif
