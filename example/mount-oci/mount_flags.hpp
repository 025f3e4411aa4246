// SPDX-License-Identifier: Apache-2.0
/// @file
/// mount(2)'s flags in other words.
#pragma once

#include <array>
#include <utility>

#include <sys/mount.h>

namespace mount_oci {

/// As fsmount(2) wants them.
[[nodiscard]] constexpr unsigned mount_attributes(unsigned long flags) noexcept {
  constexpr std::array<std::pair<unsigned long, unsigned>, 6> table{
      {{MS_RDONLY, MOUNT_ATTR_RDONLY},
       {MS_NOSUID, MOUNT_ATTR_NOSUID},
       {MS_NODEV, MOUNT_ATTR_NODEV},
       {MS_NOEXEC, MOUNT_ATTR_NOEXEC},
       {MS_NOATIME, MOUNT_ATTR_NOATIME},
       {MS_NODIRATIME, MOUNT_ATTR_NODIRATIME}}};
  unsigned attributes = 0;
  for (auto const& [flag, attribute] : table) {
    if ((flags & flag) != 0) attributes |= attribute;
  }
  return attributes;
}

}  // namespace mount_oci
