// SPDX-License-Identifier: Apache-2.0
/// @file
/// choose_here(): decides how to mount an image on this machine.
#pragma once

#include <span>

#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/host/host_support.hpp>
#include <erofs_oci/posix/program.hpp>

namespace erofs_oci {

/// choose_among() for this machine and this process. Blocks: loads the nbd driver by modprobe(8) if
/// it is chosen and not loaded, and decides anew.
[[nodiscard]] inline MountChoice choose_here(std::span<MountWay const> allowed = all_mount_ways,
                                             ImageNeeds const& image = {}) {
  auto const host = probe_host();
  auto choice = choose_among(allowed, host, image);
  if (!choice.way || !is_nbd(*choice.way) || host.nbd != Presence::loadable) return choice;
  // What is on a device is an image's: the kernel is to look for no partitions in it.
  static_cast<void>(run_program({"modprobe", "-q", "nbd", "max_part=0"}));
  return choose_among(allowed, probe_host(), image);
}

}  // namespace erofs_oci
