// SPDX-License-Identifier: Apache-2.0
// One round of the poll(2) loop that a device of the mount's supervisor needs.
#pragma once

#include <vector>

#include <poll.h>

#include <catch.hpp>

namespace erofs_oci::test {

/// Waits for what watch() adds, at most 20 s, and lets act() see it.
template <class Device>
void poll_once(Device& device) {
  std::vector<pollfd> fds;
  device.watch(fds);
  REQUIRE(::poll(fds.data(), fds.size(), 20'000) > 0);
  device.act(fds);
}

}  // namespace erofs_oci::test
