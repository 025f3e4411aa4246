// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/recovery/hang_check.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <csignal>
#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <thread>

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch.hpp>

#include <erofs_oci/core/activity.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/recovery/supervision.hpp>

namespace erofs_oci {
namespace hang_check_test {

using namespace std::chrono_literals;

/// What is found out by that many looks at the same thing.
std::optional<std::string> look(HangCheck& check, ProcessView const& view, int times) {
  std::optional<std::string> why;
  for (int i = 0; i < times && !why; ++i) why = check.look(view);
  return why;
}

/// A child that lives as long as this.
class Child {
 public:
  explicit Child(std::function<void()> const& life) : pid_(::fork()) {
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    life();
    ::_exit(0);
  }
  Child(Child const&) = delete;
  Child& operator=(Child const&) = delete;
  ~Child() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }

 private:
  pid_t pid_;
};

[[noreturn]] void sleep_for_ever() {
  for (;;) ::pause();
}

/// Looks until it hangs, or long enough to say that it does not.
std::optional<std::string> judge(Child const& child, std::chrono::milliseconds patience) {
  HangCheck check;
  auto const end = std::chrono::steady_clock::now() + patience;
  std::optional<std::string> why;
  while (!why && std::chrono::steady_clock::now() < end) {
    auto const view = view_process(child.pid());
    REQUIRE(view.has_value());
    why = check.look(*view);
    std::this_thread::sleep_for(20ms);
  }
  return why;
}

TEST_CASE("A process that waits for a processor or a disk does not hang",
          "[recovery][hang_check]") {
  HangCheck check;
  CHECK_FALSE(look(check, {'R', 10ms, false}, 100));
  CHECK_FALSE(look(check, {'R', 59ms, true}, 100));
  CHECK_FALSE(look(check, {'D', 59ms, false}, 100));
  CHECK_FALSE(look(check, {'S', 59ms, true}, 100));
  CHECK_FALSE(look(check, {'t', 59ms, false}, 100));  // a debugger's
}

TEST_CASE("A process that sleeps, spins or is stopped hangs", "[recovery][hang_check]") {
  HangCheck check;
  CHECK(look(check, {'T', 1s, false}, 1) == "it was stopped by a signal");
  check.reset();
  CHECK_FALSE(look(check, {'R', 1s, false}, 100));
  CHECK(look(check, {'R', 1050ms, false}, 1) == "its main thread is spinning");
  check.reset();
  CHECK_FALSE(look(check, {'S', 1s, false}, HangCheck::most_asleep - 1));
  CHECK(look(check, {'S', 1s, false}, 1) == "its main thread is blocked");
}

TEST_CASE("A sign makes up for what was seen before", "[recovery][hang_check]") {
  HangCheck check;
  for (int i = 0; i < 10; ++i) {
    CHECK_FALSE(look(check, {'S', 1s, false}, HangCheck::most_asleep - 1));
    check.reset();
    CHECK_FALSE(check.look({'R', std::chrono::seconds(i), false}));
    check.reset();
  }
}

TEST_CASE("One look at it awake makes up for a sleep", "[recovery][hang_check]") {
  HangCheck check;
  for (int i = 0; i < 10; ++i) {
    CHECK_FALSE(look(check, {'S', 1s, false}, HangCheck::most_asleep - 1));
    CHECK_FALSE(check.look({'R', 1s, false}));
  }
}

/// A worker of which only the main loop is played, on a clock that is set, and its supervisor. The
/// loop is FuseSession's and NbdEngine's; between any two of its steps a request may begin or end.
class PlayedWorker {
 public:
  explicit PlayedWorker(std::uint32_t seed) : random_(seed) { static_cast<void>(machine_.adopt()); }

  /// Runs for a while, blocked for ever from `blocked_at` on.
  /// @return when the supervisor kills it; empty if it does not
  std::optional<std::chrono::milliseconds> run(std::chrono::milliseconds length,
                                               std::chrono::milliseconds blocked_at) {
    auto next_tick = TickRhythm::idle_tick;
    for (std::chrono::milliseconds now{0}; now < length; now += 1ms, clock_.sleep(1ms)) {
      if (now >= next_tick && now < blocked_at) next_tick = now + tick();
      if (machine_.expired() != Decision::examine) continue;
      // Requests wait for the network: every thread sleeps.
      if (machine_.examined(check_.look({'S', 1s, false})) == Decision::kill) return now;
    }
    return std::nullopt;
  }

 private:
  std::chrono::milliseconds tick() {
    something_happens();
    auto const busy = rhythm_.look(work_);
    something_happens();
    check_.reset();
    static_cast<void>(machine_.heartbeat(busy));
    something_happens();
    return rhythm_.wait(work_);
  }

  void something_happens() {
    if (work_.under_way() == 0) return work_.begin();
    if (random_() % 2 == 0) work_.end();
  }

  std::mt19937 random_;
  ManualClock clock_;
  Activity<> work_;
  TickRhythm rhythm_;
  Supervision<ManualClock> machine_{{.suspect_idle_after = 1500ms}, clock_};
  HangCheck check_;
};

TEST_CASE("No request that ends between two looks makes a worker look hung",
          "[recovery][hang_check]") {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    INFO("seed " << seed);
    CHECK_FALSE(PlayedWorker(seed).run(20s, 1h));
  }
}

TEST_CASE("A worker that blocks is found soon", "[recovery][hang_check]") {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    INFO("seed " << seed);
    auto const killed = PlayedWorker(seed).run(20s, 5s);
    REQUIRE(killed);
    // From its last sign: 50 ms, and 3 looks; but if it had nothing to do then, 1500 ms.
    CHECK(*killed <= 5s + 1500ms + 2 * 20ms);
    CHECK(*killed >= 5s);
  }
}

TEST_CASE("Living processes are told apart", "[recovery][hang_check]") {
  SECTION("one that sleeps") {
    Child const child(sleep_for_ever);
    CHECK(judge(child, 10s) == "its main thread is blocked");
  }
  SECTION("one that spins") {
    Child const child([] {
      for (std::atomic<unsigned> i{0};; ++i) {}
    });
    CHECK(judge(child, 10s) == "its main thread is spinning");
  }
  SECTION("one that is stopped") {
    Child const child(sleep_for_ever);
    ::kill(child.pid(), SIGSTOP);
    CHECK(judge(child, 10s) == "it was stopped by a signal");
  }
  SECTION("one whose other thread works") {
    Child const child([] {
      std::thread worker([] {
        for (std::atomic<unsigned> i{0};; ++i) {}
      });
      worker.join();
    });
    // Before its thread has begun it may be seen asleep.
    std::optional<ProcessView> view;
    for (int i = 0; i < 1000 && !(view && view->others_run && view->state == 'S'); ++i) {
      std::this_thread::sleep_for(5ms);
      view = view_process(child.pid()).value();
    }
    CHECK_FALSE(judge(child, 300ms));
  }
}

TEST_CASE("A process that does not live cannot be viewed", "[recovery][hang_check][error]") {
  std::optional<pid_t> gone;
  {
    Child const child(sleep_for_ever);
    gone = child.pid();
  }
  CHECK_FALSE(view_process(*gone).has_value());
}

TEST_CASE("A run time is the first number of a line", "[recovery][hang_check]") {
  CHECK(parse_run_time("123456 789 12") == 123456ns);
  for (auto const* line : {"", "x", " 1", "99999999999999999999 1 1"}) {
    CHECK_FALSE(parse_run_time(line).has_value());
  }
}

}  // namespace hang_check_test
}  // namespace erofs_oci
