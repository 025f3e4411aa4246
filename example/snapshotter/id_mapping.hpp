// SPDX-License-Identifier: Apache-2.0
/// @file
/// IdMapping: whose files a container with a user namespace sees.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include <erofs_oci/core/result.hpp>

#include <mount_table.hpp>

#include "snapshot.hpp"

namespace oci_snapshotter {

/// @name By which containerd says that a container has a user namespace
/// @{
inline constexpr char const* user_mapping_label = "containerd.io/snapshot/uidmapping";
inline constexpr char const* group_mapping_label = "containerd.io/snapshot/gidmapping";
/// @}

/// Consecutive numbers of a user namespace, and what they are outside of it.
struct IdRange {
  std::uint32_t inside = 0;
  std::uint32_t outside = 0;
  std::uint32_t length = 0;

  friend bool operator==(IdRange const&, IdRange const&) = default;
};

/// @param text  `INSIDE:OUTSIDE:LENGTH`, several separated by commas
/// @error{invalid_argument, anything else, or numbers beyond those of 32 bits}
[[nodiscard]] erofs_oci::Result<std::vector<IdRange>> parse_id_ranges(std::string_view text);

/// The users and groups of a user namespace.
class IdMapping {
 public:
  /// @return  nothing if the labels tell of no user namespace
  /// @error{invalid_argument, one label without the other; as parse_id_ranges()}
  [[nodiscard]] static erofs_oci::Result<std::optional<IdMapping>> of(Labels const& labels);

  /// Who an owner in the image is to the host; one that the namespace lacks is its root.
  [[nodiscard]] uid_t user(uid_t id) const { return mapped(users_, id); }
  [[nodiscard]] gid_t group(gid_t id) const { return mapped(groups_, id); }

  /// Whether these are owners outside of the namespace, to which it maps numbers of its own. So
  /// the root directory of a tree is owned that was copied for it.
  [[nodiscard]] bool has_mapped(uid_t user, gid_t group) const;

  /// By which containerd 2.0 and later mount the lower directories with mapped owners.
  [[nodiscard]] std::vector<std::string> mount_options() const;

 private:
  [[nodiscard]] static std::uint32_t mapped(std::span<IdRange const> ranges, std::uint32_t id);

  std::string user_text_;
  std::string group_text_;
  std::vector<IdRange> users_;
  std::vector<IdRange> groups_;
};

/// Whether what is mounted at a path has owners that the kernel cannot map: those of FUSE.
[[nodiscard]] bool is_unmappable(std::vector<mount_oci::MountEntry> const& table,
                                 std::string const& path);

}  // namespace oci_snapshotter
