// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/ref.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace ref_test {

using testing::Archetype;
using testing::Counting;
using testing::RequestLog;

static_assert(RandomAccessSource<Ref<AnySource>>);
static_assert(RandomAccessSource<Shared<AnySource>>);
static_assert(!std::constructible_from<Ref<Archetype>, Archetype>,
              "a temporary cannot be borrowed");

TEST_CASE("Ref and Shared read as their source", "[combinator][ref][property]") {
  rc::prop("for all bytes", [] {
    auto const bytes = *testing::any_bytes();
    Archetype const source(bytes);
    Shared const shared{Archetype(bytes)};

    testing::obeys_laws(AnySource(Ref(source)), bytes);
    testing::obeys_laws(AnySource(Shared(shared)), bytes);
    testing::obeys_laws_concurrently(AnySource(Shared(shared)), bytes, 2);
  });
}

TEST_CASE("Ref and Shared forward every optional power", "[combinator][ref]") {
  RequestLog log;
  auto const inner = [&] { return Counting(Archetype(Bytes(8)), log); };
  auto const borrowed = inner();
  auto const both = [](auto const& source) {
    CHECK_FALSE(is_remote(source));
    CHECK(describe(source) == "source");
    CHECK(stream(source, 0, 8, [](auto) { return true; }).has_value());
  };

  both(Ref(borrowed));
  both(Shared(inner()));

  CHECK(log.count(RequestLog::Kind::stream) == 2);
}

}  // namespace ref_test
}  // namespace erofs_oci
