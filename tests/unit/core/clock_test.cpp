// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/clock.hpp>  // first: proves that the header stands alone

#include <catch2/catch.hpp>

namespace erofs_oci {
namespace {

using namespace std::chrono_literals;

TEST_CASE("ManualClock moves only when told, for all its copies", "[core][clock]") {
  ManualClock const clock;
  auto const copy = clock;
  auto const begin = clock.now();

  copy.sleep(1h);

  CHECK(clock.now() - begin == 1h);
  CHECK(copy.now() == clock.now());
}

TEST_CASE("SteadyClock lets at least the pause pass", "[core][clock]") {
  SteadyClock const clock;
  auto const begin = clock.now();

  clock.sleep(5ms);

  CHECK(clock.now() - begin >= 5ms);
}

}  // namespace
}  // namespace erofs_oci
