// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/recovery/supervision.hpp>  // first: proves that the header stands alone

#include <csignal>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace supervision_test {

using namespace std::chrono_literals;
using State = SupervisionState;

constexpr ProcessExit killed{{}, SIGKILL};
constexpr ProcessExit segfault{{}, SIGSEGV};
constexpr ProcessExit success{0, {}};
constexpr ProcessExit failure{1, {}};

/// A machine and the clock that it looks at.
struct Fixture {
  explicit Fixture(SupervisionOptions options = {}) : machine(options, clock) {}

  void let_pass(std::chrono::milliseconds time) const { clock.sleep(time); }

  /// From a start that was decided to good service.
  void serve() {
    REQUIRE(machine.state() == State::starting);
    REQUIRE(machine.started() == Decision::nothing);
    REQUIRE(machine.answered() == Decision::verify);
    REQUIRE(machine.verified(Verdict::same) == Decision::nothing);
    REQUIRE(machine.state() == State::serving);
  }

  ManualClock clock;
  Supervision<ManualClock> machine;
};

TEST_CASE("A daemon is started, verified and then left alone", "[recovery][supervision]") {
  Fixture f;
  CHECK(f.machine.begin() == Decision::start);
  f.serve();
  for (int i = 0; i < 100; ++i) {
    f.let_pass(4s);
    CHECK(f.machine.heartbeat() == Decision::nothing);
    CHECK(f.machine.expired() == Decision::nothing);
  }
  CHECK(f.machine.state() == State::serving);
  CHECK(f.machine.failures() == 0);
}

TEST_CASE("A killed daemon is replaced at once, however often", "[recovery][supervision]") {
  Fixture f;
  REQUIRE(f.machine.begin() == Decision::start);
  for (int i = 0; i < 1000; ++i) {
    f.serve();
    f.let_pass(1500ms);
    CHECK(f.machine.died(killed) == Decision::start);
  }
  CHECK(f.machine.reason() == "killed by signal 9");
}

TEST_CASE("Pauses double between failures in a row, and end with good service",
          "[recovery][supervision]") {
  Fixture f;
  REQUIRE(f.machine.begin() == Decision::start);
  std::vector<long> pauses;
  for (int i = 0; i < 9; ++i) {
    REQUIRE(f.machine.started() == Decision::nothing);
    auto const decision = f.machine.died(segfault);
    if (i == 0) {
      CHECK(decision == Decision::start);
      continue;
    }
    REQUIRE(decision == Decision::pause);
    auto const pause = *f.machine.deadline() - f.clock.now();
    pauses.push_back(std::chrono::duration_cast<std::chrono::milliseconds>(pause).count());
    CHECK(f.machine.expired() == Decision::nothing);  // too early
    f.clock.sleep(std::chrono::milliseconds(pauses.back()));
    REQUIRE(f.machine.expired() == Decision::start);
  }
  CHECK(pauses == std::vector<long>{100, 200, 400, 800, 1600, 3200, 5000, 5000});

  f.serve();
  f.let_pass(1s);
  CHECK(f.machine.died(killed) == Decision::start);
  CHECK(f.machine.failures() == 1);
}

TEST_CASE("Service of an instant makes up for nothing", "[recovery][supervision]") {
  Fixture f({.most_failures = 3});
  REQUIRE(f.machine.begin() == Decision::start);
  f.serve();
  f.let_pass(999ms);
  CHECK(f.machine.died(killed) == Decision::start);
  f.serve();
  CHECK(f.machine.died(killed) == Decision::pause);
  f.let_pass(100ms);
  REQUIRE(f.machine.expired() == Decision::start);
  f.serve();
  CHECK(f.machine.died(killed) == Decision::pause);
  f.let_pass(200ms);
  REQUIRE(f.machine.expired() == Decision::start);
  f.serve();
  CHECK(f.machine.died(killed) == Decision::give_up);
}

TEST_CASE("The supervisor gives up after too long without service", "[recovery][supervision]") {
  Fixture f({.start_within = 200s, .give_up_after = 300s});
  REQUIRE(f.machine.begin() == Decision::start);
  REQUIRE(f.machine.started() == Decision::nothing);
  f.let_pass(150s);
  REQUIRE(f.machine.died(failure) == Decision::start);
  REQUIRE(f.machine.started() == Decision::nothing);
  f.let_pass(151s);

  CHECK(f.machine.died(failure) == Decision::give_up);
  CHECK(f.machine.state() == State::given_up);
  CHECK(f.machine.reason() == "exited with status 1");
}

TEST_CASE("A daemon without a sign of life is killed and replaced", "[recovery][supervision]") {
  Fixture f({.hung_after = 500ms});
  REQUIRE(f.machine.begin() == Decision::start);
  f.serve();
  for (int i = 0; i < 5; ++i) {
    f.let_pass(400ms);
    REQUIRE(f.machine.heartbeat() == Decision::nothing);
  }
  f.let_pass(499ms);
  CHECK(f.machine.expired() == Decision::nothing);
  f.let_pass(1ms);
  CHECK(f.machine.expired() == Decision::kill);
  CHECK(f.machine.heartbeat() == Decision::nothing);  // too late
  CHECK(f.machine.state() == State::killing);
  CHECK_FALSE(f.machine.deadline().has_value());

  CHECK(f.machine.died(killed) == Decision::start);
  CHECK(f.machine.reason() == "no sign of life");
}

TEST_CASE("A daemon at work that gives no sign is looked at soon", "[recovery][supervision]") {
  Fixture f({.hung_after = 500ms, .suspect_after = 50ms, .look_again = 20ms});
  REQUIRE(f.machine.begin() == Decision::start);
  f.serve();
  f.let_pass(200ms);
  REQUIRE(f.machine.expired() == Decision::nothing);
  SECTION("as it says") {
    REQUIRE(f.machine.heartbeat(true) == Decision::nothing);
  }
  SECTION("as others know, who asked it") {
    REQUIRE(f.machine.heartbeat() == Decision::nothing);
    f.let_pass(100ms);
    f.machine.asked(true);
    f.machine.asked(true);
  }
  f.let_pass(49ms);
  CHECK(f.machine.expired() == Decision::nothing);
  f.let_pass(1ms);
  REQUIRE(f.machine.expired() == Decision::examine);
  CHECK(f.machine.examined({}) == Decision::nothing);
  f.let_pass(19ms);
  CHECK(f.machine.expired() == Decision::nothing);
  f.let_pass(1ms);
  REQUIRE(f.machine.expired() == Decision::examine);
  CHECK(f.machine.examined("it sleeps") == Decision::kill);
  CHECK(f.machine.died(killed) == Decision::start);
  CHECK(f.machine.reason() == "hangs: it sleeps");
}

TEST_CASE("A daemon that may only be slow has until the end of patience",
          "[recovery][supervision]") {
  Fixture f({.hung_after = 500ms, .suspect_after = 50ms, .look_again = 20ms});
  REQUIRE(f.machine.begin() == Decision::start);
  f.serve();
  REQUIRE(f.machine.heartbeat(true) == Decision::nothing);
  auto const began = f.clock.now();
  auto decision = Decision::examine;
  int looks = -1;
  for (; decision == Decision::examine; ++looks) {
    REQUIRE(f.machine.examined({}) == Decision::nothing);
    f.clock.sleep(
        std::chrono::ceil<std::chrono::milliseconds>(*f.machine.deadline() - f.clock.now()));
    decision = f.machine.expired();
  }
  CHECK(decision == Decision::kill);
  CHECK(f.clock.now() - began == 500ms);
  CHECK(looks > 15);
  CHECK(f.machine.reason() == "no sign of life");
}

TEST_CASE("A daemon is not blamed for a time in which its supervisor has not run, either",
          "[recovery][supervision]") {
  Fixture f;
  REQUIRE(f.machine.begin() == Decision::start);
  f.serve();
  auto const busy = GENERATE(false, true);
  REQUIRE(f.machine.heartbeat(busy) == Decision::nothing);
  f.let_pass(60s);
  REQUIRE(f.machine.expired() == Decision::examine);
  REQUIRE(f.machine.examined({}) == Decision::nothing);
  auto const woke = f.clock.now();
  SECTION("it gives its sign then") {
    f.let_pass(20ms);
    CHECK(f.machine.heartbeat() == Decision::nothing);
    f.let_pass(4s);
    CHECK(f.machine.expired() == Decision::nothing);
  }
  SECTION("it does not") {
    auto decision = Decision::examine;
    while (decision == Decision::examine) {
      f.clock.sleep(
          std::chrono::ceil<std::chrono::milliseconds>(*f.machine.deadline() - f.clock.now()));
      decision = f.machine.expired();
    }
    CHECK(decision == Decision::kill);
    CHECK(f.clock.now() - woke == 5s);
  }
}

TEST_CASE("A daemon with nothing to do is not looked at", "[recovery][supervision]") {
  Fixture f;
  REQUIRE(f.machine.begin() == Decision::start);
  f.serve();
  REQUIRE(f.machine.heartbeat(true) == Decision::nothing);
  f.machine.asked(true);
  f.machine.asked(false);
  REQUIRE(f.machine.heartbeat() == Decision::nothing);
  f.let_pass(4999ms);
  CHECK(f.machine.expired() == Decision::nothing);
}

TEST_CASE("One with nothing to do has more time before it is looked at",
          "[recovery][supervision]") {
  Fixture f({.suspect_idle_after = 1500ms});
  REQUIRE(f.machine.begin() == Decision::start);
  f.serve();
  f.let_pass(1499ms);
  CHECK(f.machine.expired() == Decision::nothing);
  f.let_pass(1ms);
  CHECK(f.machine.expired() == Decision::examine);
  CHECK(f.machine.heartbeat() == Decision::nothing);
  f.let_pass(1499ms);
  CHECK(f.machine.expired() == Decision::nothing);
  f.let_pass(1ms);
  CHECK(f.machine.expired() == Decision::examine);
  CHECK(f.machine.examined("it sleeps") == Decision::kill);
}

TEST_CASE("The next daemon is not busy because the last one was", "[recovery][supervision]") {
  Fixture f;
  REQUIRE(f.machine.begin() == Decision::start);
  f.serve();
  REQUIRE(f.machine.heartbeat(true) == Decision::nothing);
  REQUIRE(f.machine.died(killed) == Decision::start);
  f.serve();
  f.let_pass(4s);
  CHECK(f.machine.expired() == Decision::nothing);
}

TEST_CASE("A daemon that hangs again and again does not look healthy", "[recovery][supervision]") {
  Fixture f({.hung_after = 5s, .healthy_after = 1s});
  REQUIRE(f.machine.begin() == Decision::start);
  for (unsigned i = 1; i < 5; ++i) {
    f.serve();
    f.let_pass(5s);  // longer than healthy_after, but there was no sign
    REQUIRE(f.machine.expired() == Decision::kill);
    auto const next = f.machine.died(killed);
    CHECK(f.machine.failures() == i);
    if (next == Decision::start) continue;
    REQUIRE(next == Decision::pause);
    f.let_pass(5s);
    REQUIRE(f.machine.expired() == Decision::start);
  }
}

TEST_CASE("Other bytes than before end everything", "[recovery][supervision]") {
  Fixture f;
  REQUIRE(f.machine.begin() == Decision::start);
  REQUIRE(f.machine.started() == Decision::nothing);
  REQUIRE(f.machine.answered() == Decision::verify);

  CHECK(f.machine.verified(Verdict::different) == Decision::kill);
  CHECK(f.machine.died(killed) == Decision::give_up);
  CHECK(f.machine.reason() == "other bytes are served than before");
}

TEST_CASE("A known span that cannot be read is one failure", "[recovery][supervision]") {
  Fixture f({.verify_within = 2s});
  REQUIRE(f.machine.begin() == Decision::start);
  REQUIRE(f.machine.started() == Decision::nothing);
  REQUIRE(f.machine.answered() == Decision::verify);
  SECTION("by an error") {
    CHECK(f.machine.verified(Verdict::unknown) == Decision::kill);
  }
  SECTION("in time") {
    f.let_pass(2s);
    CHECK(f.machine.expired() == Decision::kill);
    CHECK(f.machine.verified(Verdict::same) == Decision::nothing);  // too late
  }
  CHECK(f.machine.died(killed) == Decision::start);
}

TEST_CASE("A daemon that never answers is killed", "[recovery][supervision]") {
  Fixture f({.start_within = 3s});
  REQUIRE(f.machine.begin() == Decision::start);
  REQUIRE(f.machine.started() == Decision::nothing);
  f.let_pass(3s);
  CHECK(f.machine.heartbeat() == Decision::nothing);  // lives, but that is not enough
  CHECK(f.machine.expired() == Decision::kill);
}

TEST_CASE("An end at once is a failure, whatever its status", "[recovery][supervision]") {
  Fixture f;
  REQUIRE(f.machine.begin() == Decision::start);
  REQUIRE(f.machine.started() == Decision::nothing);
  SECTION("before an answer") {
    CHECK(f.machine.died(success) == Decision::start);
  }
  SECTION("before the comparison") {
    REQUIRE(f.machine.answered() == Decision::verify);
    CHECK(f.machine.died(success) == Decision::start);
  }
}

TEST_CASE("An end on purpose is the end", "[recovery][supervision]") {
  Fixture f;
  REQUIRE(f.machine.begin() == Decision::start);
  SECTION("status 0 after service") {
    f.serve();
    CHECK(f.machine.died(success) == Decision::done);
  }
  SECTION("any end once it has said so") {
    REQUIRE(f.machine.started() == Decision::nothing);
    CHECK(f.machine.finished() == Decision::nothing);
    CHECK(f.machine.died(killed) == Decision::done);
  }
  CHECK(f.machine.state() == State::done);
  CHECK(f.machine.begin() == Decision::nothing);
}

TEST_CASE("What the daemon before has said does not count for the next",
          "[recovery][supervision]") {
  Fixture f;
  CHECK(f.machine.finished() == Decision::nothing);
  REQUIRE(f.machine.begin() == Decision::start);
  CHECK(f.machine.finished() == Decision::nothing);
  f.serve();
  CHECK(f.machine.died(killed) == Decision::start);
}

TEST_CASE("A status that says that no restart helps is believed", "[recovery][supervision]") {
  Fixture f;
  REQUIRE(f.machine.begin() == Decision::start);
  REQUIRE(f.machine.started() == Decision::nothing);

  CHECK(f.machine.died({78, {}}) == Decision::give_up);
}

TEST_CASE("Stopping ends what lives and starts nothing", "[recovery][supervision]") {
  Fixture f({.stop_within = 2s});
  REQUIRE(f.machine.begin() == Decision::start);
  SECTION("while a start is under way") {
    CHECK(f.machine.stop_asked() == Decision::nothing);
    CHECK(f.machine.started() == Decision::terminate);
  }
  SECTION("while a start is under way that fails") {
    CHECK(f.machine.stop_asked() == Decision::nothing);
    CHECK(f.machine.start_failed("no memory") == Decision::done);
    return;
  }
  SECTION("before an answer") {
    REQUIRE(f.machine.started() == Decision::nothing);
    CHECK(f.machine.stop_asked() == Decision::terminate);
  }
  SECTION("in service, twice") {
    f.serve();
    CHECK(f.machine.stop_asked() == Decision::terminate);
    CHECK(f.machine.stop_asked() == Decision::nothing);
  }
  SECTION("in a pause") {
    REQUIRE(f.machine.started() == Decision::nothing);
    REQUIRE(f.machine.died(segfault) == Decision::start);
    REQUIRE(f.machine.start_failed("no memory") == Decision::pause);
    CHECK(f.machine.stop_asked() == Decision::done);
    return;
  }
  f.let_pass(2s);
  CHECK(f.machine.expired() == Decision::kill);
  CHECK(f.machine.died(killed) == Decision::done);
}

TEST_CASE("Stopping before the beginning is the end", "[recovery][supervision]") {
  Fixture f;
  CHECK(f.machine.stop_asked() == Decision::done);
  CHECK(f.machine.begin() == Decision::nothing);
}

TEST_CASE("A daemon that serves already is taken over", "[recovery][supervision]") {
  Fixture f;
  CHECK(f.machine.adopt() == Decision::nothing);
  CHECK(f.machine.state() == State::serving);
  CHECK(f.machine.died(killed) == Decision::start);
}

// The world that the machine looks at: at most one daemon, and what was ever decided.
TEST_CASE("There is never more than one daemon, and always a next step",
          "[recovery][supervision][model]") {
  rc::prop("for all schedules of events", [] {
    SupervisionOptions const options{.most_failures = *rc::gen::inRange(1U, 20U),
                                     .give_up_after = 600s};
    ManualClock const clock;
    Supervision<ManualClock> machine(options, clock);
    bool lives = false;
    bool stopped = false;
    bool doomed = false;  // killed or asked to end
    auto const events = *rc::gen::container<std::vector<int>>(60, rc::gen::inRange(0, 19));

    auto const see = [&](Decision decision) {
      RC_ASSERT(!(decision == Decision::start && lives));
      RC_ASSERT(!(decision == Decision::start && stopped));
      if (decision == Decision::kill || decision == Decision::terminate) {
        RC_ASSERT(lives);
        doomed = true;
      }
      RC_ASSERT((decision == Decision::done) <= (machine.state() == State::done));
      RC_ASSERT((decision == Decision::give_up) <= (machine.state() == State::given_up));
    };
    see(machine.begin());
    for (auto const event : events) {
      auto const over = machine.state() == State::done || machine.state() == State::given_up;
      auto decision = Decision::nothing;
      switch (event) {
        case 0:
        case 1:
        case 2:
          if (machine.state() != State::starting) break;
          lives = true;
          doomed = false;
          decision = machine.started();
          break;
        case 3:
          if (machine.state() == State::starting) decision = machine.start_failed("x");
          break;
        case 4:
        case 5: decision = machine.answered(); break;
        case 6:
        case 7: decision = machine.verified(Verdict::same); break;
        case 8: decision = machine.verified(Verdict::unknown); break;
        case 9: decision = machine.heartbeat(*rc::gen::arbitrary<bool>()); break;
        case 16: machine.asked(*rc::gen::arbitrary<bool>()); break;
        case 17: decision = machine.examined({}); break;
        case 18: decision = machine.examined("x"); break;
        case 10:
        case 11:
          if (!lives) break;
          lives = false;
          decision = machine.died(*rc::gen::element(killed, segfault, failure));
          break;
        case 12:
          clock.sleep(*rc::gen::element(1ms, 100ms, 1000ms, 5000ms));
          decision = machine.expired();
          break;
        case 13:
        case 14:
          if (auto const deadline = machine.deadline()) {
            if (*deadline > clock.now()) {
              clock.sleep(std::chrono::ceil<std::chrono::milliseconds>(*deadline - clock.now()));
            }
            decision = machine.expired();
            RC_ASSERT(decision != Decision::nothing);  // a deadline is never without effect
          }
          break;
        default:
          if (*rc::gen::inRange(0, 4) != 0) break;
          stopped = true;
          decision = machine.stop_asked();
          break;
      }
      see(decision);
      RC_ASSERT(!over || decision == Decision::nothing);
      RC_ASSERT(machine.has_daemon() == lives ||
                (machine.state() == State::starting && lives == false));
      // Never stuck: something is awaited, or over.
      auto const s = machine.state();
      RC_ASSERT(machine.deadline().has_value() || s == State::starting || s == State::killing ||
                s == State::done || s == State::given_up);
      RC_ASSERT((s == State::killing || s == State::stopping) <= doomed);
      RC_ASSERT(s != State::given_up || machine.failures() > options.most_failures);
      // Both sides are evaluated: RC_ASSERT shows them.
      auto const deadline = machine.deadline().value_or(clock.now());
      RC_ASSERT(s != State::pausing || deadline <= clock.now() + options.most_pause);
    }
  });
}

}  // namespace supervision_test
}  // namespace erofs_oci
