// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/activity.hpp>  // first: proves that the header stands alone

#include <catch2/catch.hpp>

namespace erofs_oci {
namespace {

using namespace std::chrono_literals;

TEST_CASE("Nothing to do is no stall", "[core][activity]") {
  ManualClock const clock;
  Activity<ManualClock> activity(clock);
  clock.sleep(10s);
  CHECK(activity.under_way() == 0);
  CHECK(activity.stalled() == 0ms);

  activity.begin();
  clock.sleep(3s);
  CHECK(activity.under_way() == 1);
  CHECK(activity.stalled() == 3s);

  activity.end();
  CHECK(activity.under_way() == 0);
  CHECK(activity.stalled() == 0ms);
}

TEST_CASE("New work does not hide that the old is not done, and an end does", "[core][activity]") {
  ManualClock const clock;
  Activity<ManualClock> activity(clock);
  activity.begin();
  for (int i = 0; i < 5; ++i) {
    clock.sleep(1s);
    activity.begin();
  }
  CHECK(activity.stalled() == 5s);

  activity.end();
  CHECK(activity.under_way() == 5);
  CHECK(activity.stalled() == 0ms);
  clock.sleep(2s);
  CHECK(activity.stalled() == 2s);
}

}  // namespace
}  // namespace erofs_oci
