// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/memory_release.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace memory_release_test {

using namespace std::chrono_literals;

constexpr MemoryReleaseOptions usual;
constexpr std::uint64_t much = 256 << 20;

/// A machine that is looked at once a second.
struct Fixture {
  std::optional<std::uint64_t> look(MemorySight const& sight) {
    now += 1s;
    return release.look(now, sight);
  }

  MemoryRelease::TimePoint now{};
  MemoryRelease release{now};
};

TEST_CASE("Nothing is given back while somebody reads", "[image][memory_release]") {
  Fixture f;
  for (std::uint64_t i = 1; i < 100; ++i) CHECK_FALSE(f.look({i, much, 0us}));
}

TEST_CASE("When nobody has read for a while, memory is given back once",
          "[image][memory_release]") {
  Fixture f;
  CHECK_FALSE(f.look({1, much}));
  for (auto i = 1; i < 30; ++i) CHECK_FALSE(f.look({1, much}));
  CHECK(f.look({1, much}) == usual.after_quiet);
  for (auto i = 0; i < 100; ++i) CHECK_FALSE(f.look({1, usual.after_quiet}));

  CHECK_FALSE(f.look({2, much}));  // somebody has read
  for (auto i = 1; i < 30; ++i) CHECK_FALSE(f.look({2, much}));
  CHECK(f.look({2, much}) == usual.after_quiet);
}

TEST_CASE("What opening an image left is given back without a read", "[image][memory_release]") {
  Fixture f;
  for (auto i = 1; i < 30; ++i) CHECK_FALSE(f.look({}));
  CHECK(f.look({}) == usual.after_quiet);
}

TEST_CASE("A quiet time of 0 is none", "[image][memory_release]") {
  MemoryRelease::TimePoint const start{};
  MemoryRelease release(start, {.quiet = 0ms});
  CHECK_FALSE(release.look(start + 24h, {0, much}));
}

TEST_CASE("While programs wait for memory, half goes at each look", "[image][memory_release]") {
  Fixture f;
  CHECK_FALSE(f.look({1, much, 5s}));          // an old wait is none
  CHECK_FALSE(f.look({2, much, 5s + 100ms}));  // a tenth of the time
  CHECK(f.look({3, much, 5s + 201ms}) == much / 2);
  CHECK(f.look({4, much / 2, 6s}) == much / 4);
  CHECK(f.look({5, 17 << 20, 7s}) == usual.in_need);
  CHECK_FALSE(f.look({6, 16 << 20, 8s}));
  CHECK_FALSE(f.look({7, much, 8s}));  // nobody waits any more
}

TEST_CASE("Nothing is known of waits between which the kernel did not count",
          "[image][memory_release]") {
  Fixture f;
  CHECK_FALSE(f.look({1, much, 5s}));
  CHECK_FALSE(f.look({2, much, std::nullopt}));
  CHECK_FALSE(f.look({3, much, 9s}));
  CHECK_FALSE(f.look({4, much, 1s}));  // it began anew
  CHECK(f.look({5, much, 2s}) == much / 2);
}

TEST_CASE("A release asks for something, and for no more than its reason allows",
          "[image][memory_release][property]") {
  rc::prop("for all sequences of looks", [] {
    MemoryReleaseOptions options;
    options.quiet = std::chrono::seconds(*rc::gen::inRange(1, 10));
    options.pause = std::chrono::milliseconds(*rc::gen::inRange(0, 5000));
    options.share = *rc::gen::inRange(1U, 20U);
    options.in_need = *rc::gen::inRange(1U, 1000U);
    options.after_quiet = *rc::gen::inRange(0U, 1000U);
    MemoryRelease::TimePoint now{};
    MemoryRelease release(now, options);
    MemorySight sight{0, 0, 0us};
    auto last_read = now;
    auto quiet_releases = 0;
    std::optional<MemoryRelease::TimePoint> last_need;
    for (auto i = 0; i < 200; ++i) {
      auto const step = std::chrono::milliseconds(*rc::gen::inRange(1, 3000));
      now += step;
      auto const reads = *rc::gen::element(0U, 0U, 0U, 1U, 50U);
      if (reads > 0) {
        sight.reads += reads;
        last_read = now;
        quiet_releases = 0;
        sight.held += *rc::gen::inRange(0U, 5000U);
      }
      auto const waits = *rc::gen::element<std::int64_t>(0, 0, step / 1ms, 10);
      *sight.waited += std::chrono::milliseconds(waits);
      auto const to = release.look(now, sight);
      if (!to) continue;
      if (now - last_read >= options.quiet && quiet_releases == 0) {
        RC_ASSERT(*to == options.after_quiet);
        ++quiet_releases;
      } else {
        RC_ASSERT(waits > 0);
        RC_ASSERT(*to >= options.in_need);
        RC_ASSERT(*to < sight.held);
        auto const is_late = !last_need || now - *last_need >= options.pause;
        RC_ASSERT(is_late);
        last_need = now;
      }
      sight.held = std::min(sight.held, *to);
    }
  });
}

TEST_CASE("A need that stays leaves no more than its least", "[image][memory_release][property]") {
  rc::prop("for all that is held", [] {
    Fixture f;
    auto held = *rc::gen::inRange<std::uint64_t>(0, std::uint64_t{1} << 40);
    auto waited = 0us;
    static_cast<void>(f.look({1, held, waited}));
    for (std::uint64_t i = 0; i < 64; ++i) {
      waited += 1s;
      held = f.look({2 + i, held, waited}).value_or(held);
    }
    RC_ASSERT(held <= usual.in_need);
  });
}

}  // namespace memory_release_test
}  // namespace erofs_oci
