// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/clock.hpp>  // first: proves that the header stands alone

#include <thread>

#include <catch.hpp>

namespace erofs_oci {
namespace clock_test {

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

  CHECK(clock.sleep(5ms));

  CHECK(clock.now() - begin >= 5ms);
}

TEST_CASE("A stop ends SteadyClock's sleeps, begun or not", "[core][clock]") {
  std::stop_source source;
  SteadyClock const clock{source.get_token()};
  auto const begin = clock.now();
  std::jthread const stopper([&] { source.request_stop(); });

  CHECK_FALSE(clock.sleep(1h));
  CHECK_FALSE(clock.sleep(1h));

  CHECK(clock.now() - begin < 1min);
}

}  // namespace clock_test
}  // namespace erofs_oci
