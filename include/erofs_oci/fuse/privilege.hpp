// SPDX-License-Identifier: Apache-2.0
/// @file
/// What this process may do, as far as mounting goes.
#pragma once

#include <array>
#include <cstdint>

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace erofs_oci {

/// Whether a capability is in the effective set: CAP_SYS_ADMIN, CAP_SYS_MODULE, ... In a user
/// namespace it counts for what belongs to that namespace only.
[[nodiscard]] inline bool has_capability(unsigned capability) noexcept {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) return false;
  return (sets[capability / 32].effective >> (capability % 32) & 1U) != 0;
}

/// Whether this process may mount in its own mount namespace.
[[nodiscard]] inline bool may_mount() noexcept {
  return has_capability(CAP_SYS_ADMIN);
}

}  // namespace erofs_oci
