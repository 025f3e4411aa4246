// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/activity.hpp>  // first: proves that the header stands alone

#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include <catch.hpp>

namespace erofs_oci {
namespace activity_test {

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

/// A clock whose reader is interrupted by what else happens at that moment.
class InterruptedClock {
 public:
  explicit InterruptedClock(std::function<void()>& interrupt) : interrupt_(&interrupt) {}
  [[nodiscard]] std::chrono::steady_clock::time_point now() const {
    if (auto const interrupt = std::exchange(*interrupt_, {})) interrupt();
    return std::chrono::steady_clock::time_point(1h);
  }
  bool sleep(std::chrono::milliseconds) const { return true; }

 private:
  std::function<void()>* interrupt_;
};

TEST_CASE("Work that is just beginning has not stalled", "[core][activity]") {
  std::function<void()> interrupt;
  Activity<InterruptedClock> activity{InterruptedClock(interrupt)};
  std::vector<std::chrono::milliseconds> seen;
  for (int i = 0; i < 2; ++i) {
    interrupt = [&] { seen.push_back(activity.stalled()); };
    activity.begin();
    interrupt = [&] { seen.push_back(activity.stalled()); };
    activity.end();
  }
  CHECK(seen == std::vector(4, 0ms));
}

TEST_CASE("Many threads begin and end at once", "[core][activity][threads]") {
  Activity<> activity;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&activity] {
        for (int i = 0; i < 10'000; ++i) {
          activity.begin();
          activity.end();
        }
        activity.begin();
      });
    }
  }
  CHECK(activity.under_way() == 4);
}

TEST_CASE("A loop that has promised the next tick soon keeps it", "[core][activity]") {
  Activity<> work;
  TickRhythm rhythm;
  CHECK(rhythm.wait(work) == TickRhythm::idle_tick);
  work.begin();
  CHECK(rhythm.wait(work) == TickRhythm::busy_tick);  // begun since the last look
  CHECK(rhythm.look(work));
  work.end();
  CHECK(rhythm.wait(work) == TickRhythm::busy_tick);  // promised
  CHECK_FALSE(rhythm.look(work));
  CHECK(rhythm.wait(work) == TickRhythm::idle_tick);
}

}  // namespace activity_test
}  // namespace erofs_oci
