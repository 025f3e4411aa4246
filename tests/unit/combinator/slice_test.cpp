// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/slice.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace slice_test {

using testing::Archetype;
using testing::Counting;
using testing::RequestLog;
using Kind = RequestLog::Kind;
using Request = RequestLog::Request;

static_assert(RandomAccessSource<Slice<Slice<Memory>>>);
static_assert(RandomAccessSource<Slice<AnySource>>);

constexpr auto far = std::uint64_t(-1);

TEST_CASE("Slice reads as the window that it was given", "[combinator][slice][property]") {
  rc::prop("for all bytes and all windows inside them", [] {
    auto const bytes = *testing::any_bytes();
    auto const begin = *rc::gen::inRange<std::uint64_t>(0, bytes.size() + 1);
    auto const length = *rc::gen::inRange<std::uint64_t>(0, bytes.size() - begin + 1);

    auto slice = Slice<Archetype>::make(Archetype(bytes), begin, length);

    RC_ASSERT(slice.has_value());
    testing::obeys_laws(AnySource(*std::move(slice)), testing::slice_of(bytes, begin, length));
  });
}

TEST_CASE("Slice::make refuses a window that leaves its source", "[combinator][slice][error]") {
  auto const [begin, length] = GENERATE(table<std::uint64_t, std::uint64_t>(
      {{0, 9}, {8, 1}, {9, 0}, {far, 1}, {1, far}, {far, far}}));

  auto const slice = Slice<Memory>::make(Memory(Bytes(8)), begin, length);

  REQUIRE_FALSE(slice.has_value());
  CHECK(slice.error().code == std::errc::result_out_of_range);
}

TEST_CASE("Slice asks only for bytes inside its window", "[combinator][slice]") {
  RequestLog log;
  auto const slice = Slice<Counting<Memory>>::make(Counting(Memory(Bytes(100)), log), 10, 20);
  REQUIRE(slice.has_value());
  Bytes out(100);

  REQUIRE(slice->read_at(15, out).value() == 5);
  REQUIRE(slice->read_at(20, out).value() == 0);
  REQUIRE(slice->stream(5, far, [](auto) { return true; }).has_value());

  CHECK(log.all() == std::vector<Request>{{Kind::read, 25, 5}, {Kind::stream, 15, 15}});
}

}  // namespace slice_test
}  // namespace erofs_oci
