// SPDX-License-Identifier: Apache-2.0
/// @file
/// The privileges of this process that matter for mounting.
#pragma once

#include <array>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/text_file.hpp>

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

namespace detail {

/// Whether /proc/self/uid_map is that of the first user namespace: all ids, as they are.
[[nodiscard]] inline bool maps_all_users(std::string_view text) {
  std::istringstream words{std::string(text)};
  std::uint64_t inside = 1;
  std::uint64_t outside = 1;
  std::uint64_t count = 0;
  words >> inside >> outside >> count;
  return inside == 0 && outside == 0 && count == 4294967295U;
}

}  // namespace detail

/// Whether this process is in the first user namespace, where root may do what no other user may.
[[nodiscard]] inline bool in_first_user_namespace() {
  return detail::maps_all_users(read_text_file("/proc/self/uid_map").value_or("0 0 4294967295"));
}

}  // namespace erofs_oci
