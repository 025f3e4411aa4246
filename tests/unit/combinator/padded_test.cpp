// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/padded.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/source/zeros.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace padded_test {

using testing::Archetype;
using testing::Counting;
using testing::RequestLog;
using testing::Tear;
using testing::Torn;
using Kind = RequestLog::Kind;
using Request = RequestLog::Request;

static_assert(RandomAccessSource<Padded<Padded<AnySource>>>);

constexpr auto top = std::uint64_t(-1);

TEST_CASE("Padded reads as its source and zeros", "[combinator][padded][property]") {
  rc::prop("for all bytes and all sizes that hold them", [] {
    auto bytes = *testing::any_bytes();
    auto const more = *rc::gen::inRange<std::size_t>(0, 300);

    auto padded = Padded<Archetype>::to_size(Archetype(bytes), bytes.size() + more);

    RC_ASSERT(padded.has_value());
    bytes.resize(bytes.size() + more);
    testing::obeys_laws(AnySource(*std::move(padded)), bytes);
  });
  rc::prop("for all bytes and all blocks", [] {
    auto bytes = *testing::any_bytes();
    auto const block = *rc::gen::inRange<std::size_t>(1, 600);

    auto padded = Padded<Memory>::to_block(Memory(bytes), block);

    RC_ASSERT(padded.has_value());
    while (bytes.size() % block != 0) bytes.push_back(std::byte{});
    testing::obeys_laws(AnySource(*std::move(padded)), bytes);
  });
}

TEST_CASE("Padded streams more zeros than fit in one piece", "[combinator][padded]") {
  auto const padded = Padded<Memory>::to_size(Memory(to_bytes("x")), 100'000);
  REQUIRE(padded.has_value());
  Bytes got;

  auto const ok = padded->stream(0, top, [&](std::span<std::byte const> piece) {
    got.insert(got.end(), piece.begin(), piece.end());
    return true;
  });

  Bytes expected(100'000);
  expected[0] = std::byte{'x'};
  REQUIRE(ok.has_value());
  CHECK(got == expected);
}

TEST_CASE("Padded never covers a short read with zeros", "[combinator][padded][error]") {
  auto const padded =
      Padded<Torn<Memory>>::to_block(Torn(Memory(Bytes(16)), Tear::short_read), 512);
  REQUIRE(padded.has_value());
  Bytes out(512);

  auto const n = padded->read_at(0, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::truncated);
}

TEST_CASE("Padded does not ask its source for zeros", "[combinator][padded]") {
  RequestLog log;
  auto const padded = Padded<Counting<Memory>>::to_size(Counting(Memory(Bytes(10)), log), 100);
  REQUIRE(padded.has_value());
  Bytes out(100);

  REQUIRE(padded->read_at(10, out).value() == 90);
  REQUIRE(padded->read_at(8, out).value() == 92);
  REQUIRE(padded->stream(10, top, [](auto) { return true; }).has_value());

  CHECK(log.all() == std::vector<Request>{{Kind::read, 8, 2}});
}

TEST_CASE("Padded refuses sizes that make no sense", "[combinator][padded][error]") {
  CHECK(Padded<Zeros>::to_size(Zeros(8), 7).error().code == std::errc::result_out_of_range);
  CHECK(Padded<Zeros>::to_block(Zeros(8), 0).error().code == std::errc::result_out_of_range);
  CHECK(Padded<Zeros>::to_block(Zeros(top), 512).error().code == std::errc::result_out_of_range);
  CHECK(Padded<Zeros>::to_block(Zeros(0), 512).value().size() == 0);
}

}  // namespace padded_test
}  // namespace erofs_oci
