// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/wakeup.hpp>  // first: proves that the header stands alone

#include <thread>

#include <catch.hpp>
#include <poll.h>

namespace erofs_oci::nbd {
namespace wakeup_test {

bool awake(Wakeup const& wakeup, int milliseconds) {
  pollfd entry{wakeup.fd(), POLLIN, 0};
  return ::poll(&entry, 1, milliseconds) == 1;
}

TEST_CASE("Wakeup ends a poll of another thread, until it is cleared", "[nbd][wakeup]") {
  auto const wakeup = *Wakeup::open();
  CHECK_FALSE(awake(wakeup, 0));

  std::jthread const other([&wakeup] {
    wakeup.notify();
    wakeup.notify();
  });

  CHECK(awake(wakeup, 10'000));
  CHECK(awake(wakeup, 0));
}

TEST_CASE("Wakeup can be cleared at any time", "[nbd][wakeup]") {
  auto const wakeup = *Wakeup::open();
  wakeup.clear();
  wakeup.notify();
  wakeup.notify();

  wakeup.clear();

  CHECK_FALSE(awake(wakeup, 0));
  wakeup.notify();
  CHECK(awake(wakeup, 0));
}

}  // namespace wakeup_test
}  // namespace erofs_oci::nbd
