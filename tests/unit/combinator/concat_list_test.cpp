// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/concat_list.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/source/zeros.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace concat_list_test {

using testing::Archetype;
using testing::Counting;
using testing::RequestLog;
using testing::Tear;
using testing::Torn;
using Kind = RequestLog::Kind;
using Request = RequestLog::Request;

static_assert(RandomAccessSource<ConcatList<AnySource>>);
static_assert(RandomAccessSource<ConcatList<ConcatList<Archetype>>>);

constexpr auto half = std::uint64_t{1} << 63;
constexpr auto top = std::uint64_t(-1);

TEST_CASE("ConcatList reads as its parts in turn", "[combinator][concat_list][property]") {
  rc::prop("for all lists of parts, the empty list and empty parts included", [] {
    auto const count = *rc::gen::inRange(0, 6);
    std::vector<Archetype> parts;
    Bytes oracle;
    for (auto i = 0; i < count; ++i) {
      auto const bytes = *testing::any_bytes();
      oracle.insert(oracle.end(), bytes.begin(), bytes.end());
      parts.emplace_back(bytes);
    }

    auto list = ConcatList<Archetype>::make(std::move(parts));

    RC_ASSERT(list.has_value());
    testing::obeys_laws(AnySource(*std::move(list)), oracle);
  });
}

TEST_CASE("ConcatList asks each part that is touched once, in order", "[combinator][concat_list]") {
  RequestLog log;
  std::vector<Counting<Memory>> parts;
  for (auto const n : {0, 10, 0, 0, 10, 10, 0}) {
    parts.emplace_back(Memory(Bytes(static_cast<std::size_t>(n))), log);
  }
  auto const source = ConcatList<Counting<Memory>>::make(std::move(parts));
  REQUIRE(source.has_value());
  Bytes out(30);

  SECTION("a read across all parts") {
    REQUIRE(source->read_at(5, out).value() == 25);
    CHECK(log.all() ==
          std::vector<Request>{{Kind::read, 5, 5}, {Kind::read, 0, 10}, {Kind::read, 0, 10}});
  }
  SECTION("a read at a border") {
    REQUIRE(source->read_at(10, std::span(out).first(1)).value() == 1);
    CHECK(log.all() == std::vector<Request>{{Kind::read, 0, 1}});
  }
  SECTION("nothing is asked for at or past the end") {
    for (auto const offset : {std::uint64_t{30}, half, top}) {
      REQUIRE(source->read_at(offset, out).value() == 0);
    }
    CHECK(log.all().empty());
  }
  SECTION("streams are split too") {
    REQUIRE(source->stream(19, 2, [](auto) { return true; }).has_value());
    CHECK(log.all() == std::vector<Request>{{Kind::stream, 9, 1}, {Kind::stream, 0, 1}});
  }
}

TEST_CASE("ConcatList never moves bytes up when a part gives too few",
          "[combinator][concat_list][error]") {
  std::vector<AnySource> parts;
  parts.emplace_back(Torn(Memory(Bytes(16)), Tear::short_read));
  parts.emplace_back(Memory(Bytes(16)));
  auto const source = ConcatList<AnySource>::make(std::move(parts));
  REQUIRE(source.has_value());
  Bytes out(32);

  auto const n = source->read_at(0, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::truncated);
}

TEST_CASE("ConcatList::make refuses sizes that overflow", "[combinator][concat_list][error]") {
  CHECK(ConcatList<Zeros>::make({Zeros(half), Zeros(half - 1)}).has_value());
  auto const refused = ConcatList<Zeros>::make({Zeros(half), Zeros(half)});
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == std::errc::value_too_large);
}

}  // namespace concat_list_test
}  // namespace erofs_oci
