// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/one_of.hpp>  // first: proves that the header stands alone

#include <catch2/catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/source/zeros.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace {

using testing::Archetype;
using testing::Counting;
using testing::Grained;
using testing::RequestLog;

static_assert(RandomAccessSource<OneOf<Memory>>);
static_assert(RandomAccessSource<OneOf<AnySource, OneOf<Archetype, Zeros>>>);
static_assert(!std::constructible_from<OneOf<Memory, Zeros>, Archetype>);

TEST_CASE("OneOf reads as what it owns", "[core][one_of][property]") {
  using Choice = OneOf<Zeros, Archetype, AnySource>;
  rc::prop("for all bytes and every choice", [] {
    auto const bytes = *testing::any_bytes();

    testing::obeys_laws(AnySource(Choice(Archetype(bytes))), bytes);
    testing::obeys_laws(AnySource(Choice(AnySource(Archetype(bytes)))), bytes);
    testing::obeys_laws(AnySource(Choice(Zeros(bytes.size()))), Bytes(bytes.size()));
  });
}

TEST_CASE("OneOf forwards every optional power", "[core][one_of]") {
  RequestLog log;
  using Choice = OneOf<Zeros, Counting<Grained<Memory>>>;
  Choice const source(Counting(Grained(Memory(Bytes(8)), 512), log));

  CHECK(granularity(source) == 512);
  CHECK_FALSE(is_remote(source));
  CHECK(describe(Choice(Zeros(1))) == "zeros");
  prefetch(source, 1, 2);
  REQUIRE(stream(source, 3, 4, [](auto) { return true; }).has_value());
  CHECK(log.all() == std::vector<RequestLog::Request>{{RequestLog::Kind::prefetch, 1, 2},
                                                      {RequestLog::Kind::stream, 3, 4}});
}

TEST_CASE("OneOf shows which source it owns", "[core][one_of]") {
  OneOf<Zeros, Memory> const source(Zeros(7));

  REQUIRE(source.get_if<Zeros>() != nullptr);
  CHECK(source.get_if<Zeros>()->size() == 7);
  CHECK(source.get_if<Memory>() == nullptr);
}

}  // namespace
}  // namespace erofs_oci
