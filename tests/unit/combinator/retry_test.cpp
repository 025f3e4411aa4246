// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/retry.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace retry_test {

using namespace std::chrono_literals;
using testing::Archetype;
using testing::Counting;
using testing::Flaky;
using testing::RequestLog;
using Kind = RequestLog::Kind;
using Request = RequestLog::Request;

static_assert(RandomAccessSource<Retry<AnySource>>);
static_assert(RandomAccessSource<Retry<Retry<Archetype>>>);

constexpr auto progress = Retry<Memory>::progress;  // bytes

Error error_of(Errc code) {
  return {make_error_code(code), "test", {}};
}

TEST_CASE("Retry reads as its source", "[combinator][retry][property]") {
  rc::prop("for all bytes", [] {
    auto const bytes = *testing::any_bytes();

    testing::obeys_laws(AnySource(Retry(Archetype(bytes), Backoff{}, ManualClock())), bytes);
  });
  rc::prop("for all bytes, and transient errors now and then", [] {
    auto const bytes = *testing::any_bytes();
    auto const first = *rc::gen::inRange(0u, 100u);
    auto const handed_first = *rc::gen::inRange<std::uint64_t>(0, bytes.size() + 1);
    auto flaky = Flaky(Archetype(bytes), {.first = first, .count = 4, .bytes_first = handed_first});

    testing::obeys_laws(AnySource(Retry(std::move(flaky), Backoff{}, ManualClock())), bytes);
  });
}

TEST_CASE("Retry gives up after its attempts, with the last error", "[combinator][retry][error]") {
  RequestLog log;
  ManualClock const clock;
  Retry const source(Counting(Flaky(Memory(Bytes(8)), {.count = 100}), log),
                     Backoff{.attempts = 4, .jitter = 0}, clock);
  Bytes out(8);

  auto const n = source.read_at(0, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::unavailable);
  CHECK(n.error().context == "gave up after 4 attempts: flaky");
  CHECK(log.fetches() == 4);
  CHECK(clock.now().time_since_epoch() == 700ms);
}

TEST_CASE("Retry does not ask again once its pause was stopped", "[combinator][retry][error]") {
  RequestLog log;
  std::stop_source source;
  source.request_stop();
  Retry const retry(Counting(Flaky(Memory(Bytes(8)), {.count = 100}), log),
                    Backoff{.attempts = 4, .first_pause = 1h, .most_pause = 1h, .total = 9h},
                    SteadyClock{source.get_token()});
  Bytes out(8);

  CHECK(retry.read_at(0, out).error().code == Errc::unavailable);
  CHECK(log.fetches() == 1);
}

TEST_CASE("Retry does not ask again after an error that will not pass",
          "[combinator][retry][error]") {
  auto const code = GENERATE(Errc::corrupt, Errc::digest_mismatch, Errc::truncated,
                             Errc::unauthorized, Errc::not_found, Errc::protocol);
  RequestLog log;
  Retry const source(Counting(Flaky(Memory(Bytes(8)), {.error = error_of(code)}), log), Backoff{},
                     ManualClock());
  Bytes out(8);

  auto const n = source.read_at(0, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == code);
  CHECK(n.error().context == "test");
  CHECK(log.fetches() == 1);
}

TEST_CASE("Retry goes on with a stream at the next byte", "[combinator][retry]") {
  RequestLog log;
  auto const bytes = testing::patterned_bytes(1000, 1);
  Retry const source(Counting(Flaky(Memory(bytes), {.count = 2, .bytes_first = 300}), log),
                     Backoff{}, ManualClock());
  Bytes got;

  auto const ok = source.stream(100, 800, [&](std::span<std::byte const> piece) {
    got.insert(got.end(), piece.begin(), piece.end());
    return true;
  });

  REQUIRE(ok.has_value());
  CHECK(got == testing::slice_of(bytes, 100, 800));
  CHECK(log.all() == std::vector<Request>{{Kind::stream, 100, 800},
                                          {Kind::stream, 400, 500},
                                          {Kind::stream, 700, 200}});
}

TEST_CASE("Retry counts a stream's attempts anew after progress", "[combinator][retry]") {
  auto const advance = GENERATE(std::uint64_t{progress}, std::uint64_t{progress - 1});
  auto const bytes = testing::patterned_bytes(20 * progress, 1);
  Retry const source(Flaky(Memory(bytes), {.count = 15, .bytes_first = advance}),
                     Backoff{.attempts = 3}, ManualClock());
  std::uint64_t got = 0;

  auto const ok = source.stream(0, bytes.size(), [&](std::span<std::byte const> piece) {
    got += piece.size();
    return true;
  });

  CHECK(ok.has_value() == (advance == progress));
  CHECK(got == (advance == progress ? bytes.size() : 3 * advance));
}

TEST_CASE("Retry does not resume a stream that its sink has stopped", "[combinator][retry]") {
  RequestLog log;
  Retry const source(Counting(Flaky(Memory(Bytes(100)), {.count = 9, .bytes_first = 50}), log),
                     Backoff{}, ManualClock());

  auto const ok = source.stream(0, 100, [](auto) { return false; });

  CHECK(ok.has_value());
  CHECK(log.fetches() == 1);
}

TEST_CASE("Retry makes no request for an empty stream", "[combinator][retry]") {
  RequestLog log;
  Retry const source(Counting(Memory(Bytes(8)), log));

  REQUIRE(source.stream(8, 100, [](auto) { return true; }).has_value());

  CHECK(log.all().empty());
}

}  // namespace retry_test
}  // namespace erofs_oci
