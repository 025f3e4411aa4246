// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/any_source.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace any_source_test {

using testing::Archetype;
using testing::Counting;
using testing::RequestLog;

static_assert(!std::copyable<AnySource>);
static_assert(!std::constructible_from<AnySource, int>);
static_assert(!std::convertible_to<Archetype, AnySource>, "an allocation is asked for by name");

/// A source that has every optional power.
struct Powerful : Archetype {
  using Archetype::Archetype;
  [[nodiscard]] bool is_remote() const { return true; }
  [[nodiscard]] std::string describe() const { return "powerful"; }
};

TEST_CASE("AnySource reads as what it owns", "[core][any_source][property]") {
  rc::prop("for all bytes", [] {
    auto const bytes = *testing::any_bytes();

    testing::obeys_laws(AnySource(Archetype(bytes)), bytes);
  });
}

TEST_CASE("AnySource forwards every optional power", "[core][any_source]") {
  RequestLog log;
  AnySource const source(Powerful(Bytes(8)));
  AnySource const counted(Counting(Archetype(Bytes(8)), log));

  CHECK(is_remote(source));
  CHECK(describe(source) == "powerful");
  CHECK_FALSE(is_remote(counted));

  REQUIRE(stream(counted, 3, 4, [](auto) { return true; }).has_value());
  CHECK(log.all() == std::vector<RequestLog::Request>{{RequestLog::Kind::stream, 3, 4}});
}

TEST_CASE("AnySource moves without touching the source", "[core][any_source]") {
  AnySource first(Archetype(to_bytes("abc")));
  auto second = std::move(first);
  first = AnySource(Archetype(to_bytes("x")));
  std::vector<AnySource> many;
  many.push_back(std::move(second));
  many.push_back(std::move(first));

  CHECK(many[0].size() == 3);
  CHECK(many[1].size() == 1);
}

}  // namespace any_source_test
}  // namespace erofs_oci
