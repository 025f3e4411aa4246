// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/recovery/hang_check.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <csignal>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace erofs_oci {
namespace {

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

TEST_CASE("Who waits for a processor or a disk does not hang", "[recovery][hang_check]") {
  HangCheck check;
  CHECK_FALSE(look(check, {'R', 10ms, false}, 100));
  CHECK_FALSE(look(check, {'R', 59ms, true}, 100));
  CHECK_FALSE(look(check, {'D', 59ms, false}, 100));
  CHECK_FALSE(look(check, {'S', 59ms, true}, 100));
  CHECK_FALSE(look(check, {'t', 59ms, false}, 100));  // a debugger's
}

TEST_CASE("Who sleeps, goes round or is stopped hangs", "[recovery][hang_check]") {
  HangCheck check;
  CHECK(look(check, {'T', 1s, false}, 1) == "it was stopped by a signal");
  check.reset();
  CHECK_FALSE(look(check, {'R', 1s, false}, 100));
  CHECK(look(check, {'R', 1050ms, false}, 1) == "its main thread goes round");
  check.reset();
  CHECK_FALSE(look(check, {'S', 1s, false}, HangCheck::most_asleep - 1));
  CHECK(look(check, {'S', 1s, false}, 1) == "its main thread waits for what does not come");
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

TEST_CASE("Living processes are told apart", "[recovery][hang_check]") {
  SECTION("one that sleeps") {
    Child const child(sleep_for_ever);
    CHECK(judge(child, 10s) == "its main thread waits for what does not come");
  }
  SECTION("one that goes round") {
    Child const child([] {
      for (std::atomic<unsigned> i{0};; ++i) {}
    });
    CHECK(judge(child, 10s) == "its main thread goes round");
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

TEST_CASE("Who does not live cannot be viewed", "[recovery][hang_check][error]") {
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

}  // namespace
}  // namespace erofs_oci
