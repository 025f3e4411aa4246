// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/fallback.hpp>  // first: proves that the header stands alone

#include <mutex>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/source/zeros.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace fallback_test {

using testing::Archetype;
using testing::Counting;
using testing::Flaky;
using testing::FlakyPlan;
using testing::RequestLog;
using testing::Tear;
using testing::Torn;
using Kind = RequestLog::Kind;
using Request = RequestLog::Request;

static_assert(RandomAccessSource<Fallback<AnySource, AnySource, IgnoreFaults>>);
static_assert(RandomAccessSource<Fallback<Archetype, Memory, void (*)(Error const&)>>);

/// Keeps the reports.
struct Reported {
  std::vector<Error>* errors;
  void operator()(Error const& error) const { errors->push_back(error); }
};

FlakyPlan always(Errc code, std::uint64_t bytes_first = 0) {
  return {.count = 1000, .bytes_first = bytes_first, .error = {make_error_code(code), "first", {}}};
}

template <class A, class B, class R>
auto fallback(A a, B b, R report) {
  return Fallback<A, B, R>::make(std::move(a), std::move(b), std::move(report)).value();
}

TEST_CASE("Fallback reads as its sources", "[combinator][fallback][property]") {
  rc::prop("for all bytes, whichever requests of the first source fail", [] {
    auto const bytes = *testing::any_bytes();
    auto const count = *rc::gen::inRange(0u, 300u);
    auto const handed_first = *rc::gen::inRange<std::uint64_t>(0, bytes.size() + 1);
    auto first = Flaky(Archetype(bytes), {.count = count, .bytes_first = handed_first});

    testing::obeys_laws(AnySource(fallback(std::move(first), Archetype(bytes), IgnoreFaults{})),
                        bytes);
  });
}

TEST_CASE("Fallback reports what the first source could not give", "[combinator][fallback]") {
  auto const code = GENERATE(Errc::digest_mismatch, Errc::corrupt, Errc::unavailable);
  std::vector<Error> errors;
  auto const source = fallback(Flaky(Memory(to_bytes("abcd")), always(code)),
                               Memory(to_bytes("abcd")), Reported{&errors});
  Bytes out(4);

  REQUIRE(source.read_at(0, out).value() == 4);

  CHECK(as_text(out) == "abcd");
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].code == code);
  CHECK(is_damage(errors[0]) == (code != Errc::unavailable));
}

TEST_CASE("Fallback takes a short read of the first source for an error",
          "[combinator][fallback][error]") {
  std::vector<Error> errors;
  auto const source = fallback(Torn(Memory(to_bytes("abcd")), Tear::short_read),
                               Memory(to_bytes("abcd")), Reported{&errors});
  Bytes out(4);

  REQUIRE(source.read_at(0, out).value() == 4);

  CHECK(as_text(out) == "abcd");
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].code == Errc::truncated);
}

TEST_CASE("Fallback goes on with a stream in the second source", "[combinator][fallback]") {
  auto const bytes = testing::patterned_bytes(100, 1);
  RequestLog log;
  std::vector<Error> errors;
  auto const source = fallback(Flaky(Memory(bytes), always(Errc::corrupt, 30)),
                               Counting(Memory(bytes), log), Reported{&errors});
  Bytes got;

  auto const ok = source.stream(10, 1000, [&](std::span<std::byte const> piece) {
    got.insert(got.end(), piece.begin(), piece.end());
    return true;
  });

  REQUIRE(ok.has_value());
  CHECK(got == testing::slice_of(bytes, 10, 1000));
  CHECK(log.all() == std::vector<Request>{{Kind::stream, 40, 60}});
  CHECK(errors.size() == 1);
}

TEST_CASE("Fallback names both errors when both sources fail", "[combinator][fallback][error]") {
  auto const bytes = Bytes(4);
  auto const source = [&](Errc first, Errc second) {
    auto plan = always(second);
    plan.error.context = "second";
    return fallback(Flaky(Memory(bytes), always(first)), Flaky(Memory(bytes), plan),
                    IgnoreFaults{});
  };
  Bytes out(4);

  SECTION("the second one's code is kept") {
    auto const n = source(Errc::corrupt, Errc::not_found).read_at(0, out);
    REQUIRE_FALSE(n.has_value());
    CHECK(n.error().code == Errc::not_found);
    CHECK(n.error().context == "second (and the other copy: first: corrupt data)");
  }
  SECTION("unless only the first one's is transient") {
    auto const n = source(Errc::unavailable, Errc::not_found).read_at(0, out);
    REQUIRE_FALSE(n.has_value());
    CHECK(is_transient(n.error()));
  }
  SECTION("a stream too") {
    auto const ok = source(Errc::corrupt, Errc::not_found).stream(0, 4, [](auto) { return true; });
    REQUIRE_FALSE(ok.has_value());
    CHECK(ok.error().code == Errc::not_found);
  }
}

TEST_CASE("Fallback::make insists on equal sizes", "[combinator][fallback][error]") {
  auto const refused = Fallback<Zeros, Memory, IgnoreFaults>::make(Zeros(8), Memory(Bytes(9)), {});

  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Errc::mismatch);
  CHECK(refused.error().context == "fallback: zeros has 8 bytes, memory has 9");
}

TEST_CASE("Fallback leaves the second source alone while the first one works",
          "[combinator][fallback]") {
  RequestLog log;
  auto const source = fallback(Memory(Bytes(8)), Counting(Memory(Bytes(8)), log), IgnoreFaults{});
  Bytes out(8);

  REQUIRE(source.read_at(0, out).value() == 8);
  REQUIRE(source.stream(0, 8, [](auto) { return true; }).has_value());

  CHECK(log.all().empty());
  CHECK(source.describe() == "memory or else memory");
}

}  // namespace fallback_test
}  // namespace erofs_oci
