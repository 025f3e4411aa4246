// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/fail_fast.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace fail_fast_test {

using namespace std::chrono_literals;
using testing::Archetype;
using testing::Counting;
using testing::Flaky;
using testing::RequestLog;

static_assert(RandomAccessSource<FailFast<AnySource>>);
static_assert(RandomAccessSource<FailFast<FailFast<Archetype>>>);

TEST_CASE("FailFast reads as its source", "[combinator][fail_fast][property]") {
  rc::prop("for all bytes", [] {
    auto const bytes = *testing::any_bytes();

    testing::obeys_laws(AnySource(FailFast(Archetype(bytes), 250ms, 2s, ManualClock())), bytes);
  });
}

TEST_CASE("Parts of what has failed fail at once, for a while", "[combinator][fail_fast][error]") {
  RequestLog log;
  ManualClock const clock;
  FailFast const source(Counting(Flaky(Memory(Bytes(100)), {.count = 1}), log), 250ms, 2s, clock);
  Bytes out(40);
  auto const code = [&](std::uint64_t offset, std::size_t length) {
    auto const n = source.read_at(offset, std::span(out).first(length));
    return n ? std::error_code() : n.error().code;
  };
  REQUIRE(code(20, 40) == Errc::unavailable);
  REQUIRE(log.fetches() == 1);

  for (auto const& [offset, length] : {std::pair(20, 40), std::pair(20, 1), std::pair(59, 1)}) {
    CHECK(code(static_cast<std::uint64_t>(offset), static_cast<std::size_t>(length)) ==
          Errc::unavailable);
  }
  CHECK(log.fetches() == 1);
  CHECK_FALSE(code(20, 0));  // reads nothing
  CHECK_FALSE(code(19, 2));  // more than what failed
  CHECK_FALSE(code(60, 40));
  CHECK_FALSE(code(100, 1));

  // Whoever goes on asking goes on failing, but not for ever.
  for (int i = 0; i < 8; ++i) {
    clock.sleep(249ms);
    CHECK(code(30, 10) == Errc::unavailable);
  }
  CHECK(log.fetches() == 5);
  clock.sleep(8ms);
  CHECK_FALSE(code(30, 10));
  CHECK(log.fetches() == 6);
}

TEST_CASE("What nobody asks for is soon asked for again", "[combinator][fail_fast][error]") {
  RequestLog log;
  ManualClock const clock;
  FailFast const source(Counting(Flaky(Memory(Bytes(8)), {.count = 1}), log), 250ms, 2s, clock);
  Bytes out(8);
  REQUIRE_FALSE(source.read_at(0, out).has_value());

  clock.sleep(250ms);

  CHECK(source.read_at(0, out).has_value());
  CHECK(log.fetches() == 2);
}

TEST_CASE("Errors that time does not heal are asked for again", "[combinator][fail_fast][error]") {
  RequestLog log;
  FailFast const source(
      Counting(Flaky(Memory(Bytes(8)),
                     {.count = 2, .error = {make_error_code(Errc::digest_mismatch), "flaky", {}}}),
               log),
      250ms, 2s, ManualClock());
  Bytes out(8);

  CHECK_FALSE(source.read_at(0, out).has_value());
  CHECK_FALSE(source.read_at(0, out).has_value());
  CHECK(log.fetches() == 2);
}

TEST_CASE("Older failures give way to newer ones", "[combinator][fail_fast][error]") {
  RequestLog log;
  FailFast const source(Counting(Flaky(Memory(Bytes(100)), {.count = 100}), log), 250ms, 2s,
                        ManualClock());
  Bytes out(1);

  for (std::uint64_t i = 0; i < 17; ++i) CHECK_FALSE(source.read_at(i, out).has_value());
  CHECK(log.fetches() == 17);
  CHECK_FALSE(source.read_at(16, out).has_value());
  CHECK(log.fetches() == 17);
  CHECK_FALSE(source.read_at(0, out).has_value());  // forgotten
  CHECK(log.fetches() == 18);
}

}  // namespace fail_fast_test
}  // namespace erofs_oci
