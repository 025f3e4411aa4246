// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/http/host_pace.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <string>

#include <catch.hpp>

namespace erofs_oci {
namespace host_pace_test {

using namespace std::chrono_literals;

HostPace::TimePoint const start{100s};

HttpHead head(int status, std::string const& retry_after) {
  return {status, {{"Retry-After", retry_after}}};
}

TEST_CASE("A host that asks for a pause gets it, and no other one", "[http][pace]") {
  auto const status = GENERATE(429, 503);
  HostPace pace;

  pace.note("a.x", head(status, "10"), start);

  auto const turn = pace.turn("a.x", start + 9s);
  REQUIRE(turn.has_value());
  CHECK((*turn >= start + 10s && *turn <= start + 11s));
  CHECK_FALSE(pace.turn("a.x", start + 10s).has_value());
  CHECK_FALSE(pace.turn("b.x", start).has_value());
}

TEST_CASE("A pause may be a date, is not shortened and has a limit", "[http][pace]") {
  HostPace pace;
  pace.note("date", head(503, "Fri, 31 Dec 9999 23:59:59 GMT"), start);
  pace.note("long", head(503, "86400"), start);
  pace.note("twice", head(503, "20"), start);
  pace.note("twice", head(503, "1"), start);

  CHECK(pace.turn("date", start) >= start + 60s);
  CHECK_FALSE(pace.turn("date", start + 60s).has_value());
  CHECK_FALSE(pace.turn("long", start + 60s).has_value());
  CHECK(pace.turn("twice", start + 19s) >= start + 20s);
}

TEST_CASE("A host that refuses and does not say for how long gets ever longer pauses",
          "[http][pace]") {
  HostPace pace;
  auto now = start;
  auto const refuse = [&] {
    pace.note("a", {429, {}}, now);
    auto const turn = pace.turn("a", now);
    REQUIRE(turn.has_value());
    auto const pause = *turn - now;
    now = *turn;
    return pause;
  };

  for (auto const least : {250ms, 500ms, 1000ms, 2000ms, 4000ms, 8000ms, 15'000ms, 15'000ms}) {
    auto const pause = refuse();
    CHECK(pause >= least);
    CHECK(pause <= least + least / 10);
  }
  SECTION("until it answers") {
    pace.note("a", {206, {}}, now);
    CHECK(refuse() < 1s);
  }
  SECTION("or nothing was asked for a minute") {
    now += HostPace::longest + 15s;
    CHECK(refuse() < 1s);
  }
  SECTION("but not for an error, which is no answer") {
    pace.note("a", {500, {}}, now);
    CHECK(refuse() >= 15s);
  }
}

TEST_CASE("Refusals of requests that were under way together count as one", "[http][pace]") {
  HostPace pace;
  for (int i = 0; i < 5; ++i) pace.note("a", {429, {}}, start + std::chrono::milliseconds(i));

  CHECK(pace.turn("a", start) <= start + 275ms);
}

TEST_CASE("Other answers ask for no pause", "[http][pace]") {
  HostPace pace;
  pace.note("a", head(500, "10"), start);
  pace.note("a", head(200, "10"), start);
  pace.note("a", head(503, "soon"), start);
  pace.note("a", head(503, "0"), start);
  pace.note("a", {503, {}}, start);

  CHECK_FALSE(pace.turn("a", start).has_value());
}

}  // namespace host_pace_test
}  // namespace erofs_oci
