// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/mount/mount_machine.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <functional>
#include <optional>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace mount_machine_test {

using namespace std::chrono_literals;
using Action = MountAction;
using State = MountState;
using FrontEnd = MountOutline::FrontEnd;
using Origin = MountOutline::Origin;
using Machine = MountMachine<ManualClock>;

constexpr MountOutline device{.front_end = FrontEnd::device, .may_reconnect = true};
constexpr MountOutline connection{.front_end = FrontEnd::connection};

MountOutline from(MountOutline outline, Origin origin) {
  outline.origin = origin;
  return outline;
}

/// A machine, brought to good service, and the clock that it looks at.
struct Fixture {
  explicit Fixture(MountOutline outline = device) : machine(outline, clock) {}

  void mount() {
    REQUIRE(machine.opened() == Action::serve);
    REQUIRE(machine.answered() == Action::announce);
    REQUIRE(machine.mounted() == Action::settle);
  }

  ManualClock clock;
  Machine machine;
};

TEST_CASE("A new mount is announced, then settled", "[mount][machine]") {
  for (auto const& outline : {device, connection}) {
    Fixture f(outline);
    CHECK_FALSE(f.machine.has_served());
    CHECK(f.machine.opened() == Action::serve);
    CHECK(f.machine.answered() == Action::announce);
    CHECK(f.machine.has_served());
    CHECK(f.machine.mounted() == Action::settle);
    CHECK(f.machine.opened() == Action::serve);  // a worker that replaces the first one
    CHECK(f.machine.answered() == Action::nothing);
    CHECK(f.machine.state() == State::mounted);
  }
}

TEST_CASE("A mount that is left behind is settled by its first read", "[mount][machine]") {
  Fixture f(from(device, Origin::left_behind));
  CHECK(f.machine.is_earlier());
  CHECK_FALSE(f.machine.has_predecessor());
  CHECK(f.machine.opened() == Action::serve);
  CHECK(f.machine.answered() == Action::settle);
}

TEST_CASE("Of a predecessor, sockets are taken last and a connection first", "[mount][machine]") {
  SECTION("sockets: this process can read the image before the other one stops") {
    Fixture f(from(device, Origin::predecessor));
    CHECK(f.machine.opened() == Action::serve);
    CHECK(f.machine.answered() == Action::take);
    CHECK(f.machine.has_predecessor());
    CHECK(f.machine.taken(true) == Action::settle);
    CHECK_FALSE(f.machine.has_predecessor());
  }
  SECTION("a connection: the worker needs it to answer a read") {
    Fixture f(from(connection, Origin::predecessor));
    CHECK(f.machine.opened() == Action::take);
    CHECK(f.machine.taken(true) == Action::serve);
    CHECK(f.machine.answered() == Action::settle);
  }
  SECTION("nothing: the other one serves on") {
    Fixture f(from(device, Origin::predecessor));
    static_cast<void>(f.machine.opened());
    static_cast<void>(f.machine.answered());
    CHECK(f.machine.taken(false) == Action::abandon);
    CHECK(f.machine.is_over());
  }
}

TEST_CASE("What fails before the mount stands is abandoned", "[mount][machine]") {
  std::vector<std::function<Action(Machine&)>> const failures = {
      [](Machine& m) { return m.mounting_failed(); },
      [](Machine& m) { return m.interrupted(true); },
  };
  for (auto const& fails : failures) {
    for (int steps = 0; steps < 3; ++steps) {
      Fixture f;
      if (steps > 0) REQUIRE(f.machine.opened() == Action::serve);
      if (steps > 1) REQUIRE(f.machine.answered() == Action::announce);
      CHECK(fails(f.machine) == Action::abandon);
      CHECK(f.machine.is_over());
      CHECK(f.machine.mounted() == Action::nothing);
    }
  }
  Fixture f;
  f.mount();
  CHECK(f.machine.mounting_failed() == Action::nothing);
}

TEST_CASE("A first signal unmounts, a second one ends the mount under its users",
          "[mount][machine]") {
  Fixture f;
  f.mount();
  CHECK(f.machine.interrupted(true) == Action::unmount);
  SECTION("unmounted") {
    CHECK(f.machine.unmounted(true) == Action::nothing);
    CHECK(f.machine.device_ended(false) == Action::finish);
  }
  SECTION("in use: detached, and served to its last user") {
    CHECK(f.machine.unmounted(false) == Action::detach);
    CHECK(f.machine.unmounted(true) == Action::nothing);
    CHECK(f.machine.state() == State::detached);
    CHECK(f.machine.interrupted(true) == Action::disconnect);
    CHECK(f.machine.device_ended(true) == Action::finish);  // it is not wanted again
  }
  SECTION("it cannot be detached either") {
    CHECK(f.machine.unmounted(false) == Action::detach);
    CHECK(f.machine.unmounted(false) == Action::disconnect);
  }
  SECTION("at once") {
    CHECK(f.machine.interrupted(true) == Action::disconnect);
    CHECK(f.machine.unmounted(true) == Action::nothing);
  }
}

TEST_CASE("What is mounted in another namespace cannot be unmounted here", "[mount][machine]") {
  Fixture f;
  f.mount();
  CHECK(f.machine.interrupted(false) == Action::disconnect);
}

TEST_CASE("A device whose sockets the kernel closes gets others", "[mount][machine]") {
  Fixture f;
  f.mount();
  CHECK(f.machine.device_ended(true) == Action::reconnect);
  CHECK(f.machine.is_earlier());
  CHECK(f.machine.opened() == Action::serve);
  CHECK(f.machine.state() == State::mounted);
  CHECK(f.machine.device_ended(false) == Action::finish);
  CHECK(f.machine.is_over());
}

TEST_CASE("One that cannot get others ends", "[mount][machine]") {
  auto outline = device;
  outline.may_reconnect = false;
  Fixture f(outline);
  f.mount();
  CHECK(f.machine.device_ended(true) == Action::finish);
}

TEST_CASE("A device is drained, given and let go", "[mount][machine][handover]") {
  Fixture f;
  f.mount();
  CHECK(f.machine.asked_for() == Action::drain);
  CHECK(f.machine.asked_for() == Action::nothing);  // one at a time
  CHECK(f.machine.drained() == Action::give);
  SECTION("taken") {
    CHECK(f.machine.confirmed(Confirmation::taken) == Action::let_go);
    CHECK(f.machine.is_over());
  }
  SECTION("refused: served on") {
    CHECK(f.machine.confirmed(Confirmation::refused) == Action::resume);
    CHECK(f.machine.resumed(true) == Action::nothing);
    CHECK(f.machine.asked_for() == Action::drain);
  }
  SECTION("refused after a signal: unmounted") {
    CHECK(f.machine.interrupted(true) == Action::nothing);
    CHECK(f.machine.confirmed(Confirmation::refused) == Action::resume);
    CHECK(f.machine.resumed(true) == Action::unmount);
  }
  SECTION("silence: the other process has the sockets, so they are its own") {
    f.clock.sleep(59s);
    CHECK(f.machine.expired() == Action::nothing);
    f.clock.sleep(1s);
    CHECK(f.machine.expired() == Action::let_go);
  }
}

TEST_CASE("A connection is given once its worker has ended", "[mount][machine][handover]") {
  Fixture f(connection);
  f.mount();
  CHECK(f.machine.asked_for() == Action::drain);
  CHECK(f.machine.workers_ended() == Action::give);
  CHECK(f.machine.workers_ended() == Action::nothing);
  f.clock.sleep(60s);
  CHECK(f.machine.expired() == Action::resume);  // both may read from it
  CHECK(f.machine.workers_ended() == Action::finish);
}

TEST_CASE("A device that is reconnected while it is drained is not given", "[mount][machine]") {
  Fixture f;
  f.mount();
  REQUIRE(f.machine.asked_for() == Action::drain);
  SECTION("and a signal that came meanwhile unmounts") {
    CHECK(f.machine.interrupted(true) == Action::nothing);
    CHECK(f.machine.device_ended(true) == Action::reconnect);
    CHECK(f.machine.resumed(true) == Action::unmount);
    return;
  }
  CHECK(f.machine.device_ended(true) == Action::reconnect);
  CHECK(f.machine.drained() == Action::nothing);
  CHECK(f.machine.asked_for() == Action::drain);
}

// --- properties over sequences of events --------------------------------------------------------

using Event = std::function<Action(Fixture&)>;

std::vector<Event> const& events() {
  static std::vector<Event> const all = {
      [](Fixture& f) { return f.machine.opened(); },
      [](Fixture& f) { return f.machine.answered(); },
      [](Fixture& f) { return f.machine.taken(true); },
      [](Fixture& f) { return f.machine.taken(false); },
      [](Fixture& f) { return f.machine.mounted(); },
      [](Fixture& f) { return f.machine.mounting_failed(); },
      [](Fixture& f) { return f.machine.interrupted(true); },
      [](Fixture& f) { return f.machine.interrupted(false); },
      [](Fixture& f) { return f.machine.unmounted(true); },
      [](Fixture& f) { return f.machine.unmounted(false); },
      [](Fixture& f) { return f.machine.unused(); },
      [](Fixture& f) { return f.machine.device_ended(true); },
      [](Fixture& f) { return f.machine.device_ended(false); },
      [](Fixture& f) { return f.machine.workers_ended(); },
      [](Fixture& f) { return f.machine.asked_for(); },
      [](Fixture& f) { return f.machine.drained(); },
      [](Fixture& f) { return f.machine.confirmed(Confirmation::taken); },
      [](Fixture& f) { return f.machine.confirmed(Confirmation::refused); },
      [](Fixture& f) { return f.machine.confirmed(Confirmation::unknown); },
      [](Fixture& f) { return f.machine.resumed(true); },
      [](Fixture& f) {
        f.clock.sleep(40s);
        return f.machine.expired();
      },
  };
  return all;
}

MountOutline any_outline() {
  MountOutline outline;
  outline.front_end = *rc::gen::element(FrontEnd::device, FrontEnd::connection);
  outline.origin = *rc::gen::element(Origin::fresh, Origin::left_behind, Origin::predecessor);
  outline.may_reconnect = *rc::gen::arbitrary<bool>();
  return outline;
}

/// What a sequence of events has led to.
struct Step {
  State before;
  Action action;
  State after;
};

/// Plays events at random, behind a beginning that leads to a state which chance seldom reaches.
std::vector<Step> play(Fixture& f) {
  std::vector<Step> steps;
  auto const record = [&](std::size_t event) {
    auto const before = f.machine.state();
    auto const action = events()[event](f);
    steps.push_back({before, action, f.machine.state()});
  };
  std::vector<std::size_t> const mounted{0, 2, 1, 2, 4};
  std::vector<std::vector<std::size_t>> const more{{}, {6}, {14}, {14, 15}};
  auto const further = *rc::gen::elementOf(more);
  if (*rc::gen::inRange(0, 5) != 0) {
    for (auto const event : mounted) record(event);
    for (auto const event : further) record(event);
  }
  auto const sequence = *rc::gen::container<std::vector<std::size_t>>(
      rc::gen::inRange<std::size_t>(0, events().size()));
  for (auto const event : sequence) record(event);
  return steps;
}

TEST_CASE("Whatever happens, a mount keeps its promises", "[mount][machine][property]") {
  rc::prop("it is settled at most once, and only when nothing of it is another's", [] {
    Fixture f(any_outline());
    auto const steps = play(f);
    RC_ASSERT(std::ranges::count(steps, Action::settle, &Step::action) <= 1);
    for (auto const& step : steps) {
      if (step.action == Action::settle) RC_ASSERT(step.after == State::mounted);
      if (step.action == Action::announce) RC_ASSERT(step.after == State::mounting);
    }
  });
  rc::prop("nothing is done to a front end that another process may have", [] {
    Fixture f(any_outline());
    for (auto const& [before, action, after] : play(f)) {
      if (before != State::giving) continue;
      RC_ASSERT(action == Action::nothing || action == Action::let_go || action == Action::resume ||
                action == Action::serve);
      RC_ASSERT(after == State::giving || after == State::handed_over || after == State::mounted);
    }
  });
  rc::prop("an end is final", [] {
    Fixture f(any_outline());
    auto over = false;
    for (auto const& [before, action, after] : play(f)) {
      if (over) RC_ASSERT(action == Action::nothing && before == after);
      over = after == State::finished || after == State::handed_over || after == State::abandoned;
    }
    RC_ASSERT(over == f.machine.is_over());
  });
  rc::prop("a state changes only with an action, but for a umount(2) that has worked", [] {
    Fixture f(any_outline());
    for (auto const& [before, action, after] : play(f)) {
      if (action == Action::nothing && before != after) RC_ASSERT(after == State::detached);
    }
  });
  rc::prop("two signals and the end of the front end lead to the end, wherever it is", [] {
    Fixture f(any_outline());
    play(f);
    f.clock.sleep(60s);
    static_cast<void>(f.machine.expired());
    static_cast<void>(f.machine.resumed(true));
    if (f.machine.state() == State::draining) static_cast<void>(f.machine.device_ended(false));
    static_cast<void>(f.machine.interrupted(true));
    static_cast<void>(f.machine.interrupted(true));
    static_cast<void>(f.machine.device_ended(false));
    RC_ASSERT(f.machine.is_over());
  });
  rc::prop("only what waits for a confirmation has a deadline", [] {
    Fixture f(any_outline());
    play(f);
    RC_ASSERT(f.machine.deadline().has_value() == (f.machine.state() == State::giving));
  });
}

}  // namespace mount_machine_test
}  // namespace erofs_oci
