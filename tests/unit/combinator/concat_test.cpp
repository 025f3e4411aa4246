// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/concat.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/combinator/slice.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/source/zeros.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace concat_test {

using testing::Archetype;
using testing::Counting;
using testing::RequestLog;
using testing::Tear;
using testing::Torn;
using Kind = RequestLog::Kind;
using Request = RequestLog::Request;

static_assert(RandomAccessSource<Concat<Memory>>);
static_assert(RandomAccessSource<Concat<Archetype, Concat<AnySource>, Slice<Zeros>>>);

constexpr auto half = std::uint64_t{1} << 63;
constexpr auto top = std::uint64_t(-1);

Bytes joined(std::initializer_list<Bytes> parts) {
  Bytes all;
  for (auto const& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

TEST_CASE("Concat reads as its parts in turn", "[combinator][concat][property]") {
  rc::prop("for all parts, over memory", [] {
    auto const a = *testing::any_bytes();
    auto const b = *testing::any_bytes();

    testing::obeys_laws(AnySource(Concat(Memory(a), Memory(b))), joined({a, b}));
  });
  rc::prop("for all parts, over archetypes and erased sources", [] {
    auto const a = *testing::any_bytes();
    auto const b = *testing::any_bytes();
    auto const c = *testing::any_bytes();
    auto source = AnySource(Concat(Archetype(a), AnySource(Archetype(b)), Archetype(c)));

    testing::obeys_laws(source, joined({a, b, c}));
    testing::obeys_laws_concurrently(source, joined({a, b, c}), 2);
  });
}

TEST_CASE("Concat of an index and a layer reads right around their borders",
          "[combinator][concat]") {
  // T: where the tarindex ends and the layer begins; D: the end of the device.
  auto const index = testing::patterned_bytes(1024, 1);
  auto const layer = testing::patterned_bytes(2048, 2);
  auto const oracle = joined({index, layer});
  std::uint64_t const t = index.size();
  std::uint64_t const d = oracle.size();
  auto const offset =
      GENERATE_COPY(std::uint64_t{0}, t - 1, t, t + 1, d - 1, d, d + 1, half - 1, half, top);
  auto const length = GENERATE_COPY(std::size_t{0}, std::size_t{1}, std::size_t{2},
                                    std::size_t{512}, static_cast<std::size_t>(d) + 1);
  Concat const source{Memory(index), Memory(layer)};
  CAPTURE(offset, length);

  Bytes out(length, std::byte{0xA5});
  auto const n = source.read_at(offset, out);

  auto const expected = testing::slice_of(oracle, offset, length);
  REQUIRE(n.has_value());
  REQUIRE(*n == expected.size());
  CHECK(std::equal(expected.begin(), expected.end(), out.begin()));
  CHECK(std::all_of(out.begin() + static_cast<std::ptrdiff_t>(*n), out.end(),
                    [](std::byte byte) { return byte == std::byte{0xA5}; }));
}

TEST_CASE("Concat asks each part that a read touches once, in order", "[combinator][concat]") {
  RequestLog log;
  auto const part = [&](std::size_t n) { return Counting(Memory(Bytes(n)), log); };
  Concat const source(part(10), part(0), part(10), part(10));
  Bytes out(12);

  SECTION("a read across two parts skips the empty one between them") {
    REQUIRE(source.read_at(5, out).has_value());
    CHECK(log.all() == std::vector<Request>{{Kind::read, 5, 5}, {Kind::read, 0, 7}});
  }
  SECTION("a read at a border touches only what follows") {
    REQUIRE(source.read_at(10, std::span(out).first(10)).has_value());
    CHECK(log.all() == std::vector<Request>{{Kind::read, 0, 10}});
  }
  SECTION("a read of nothing, or at or past the end, reaches no part") {
    REQUIRE(source.read_at(5, {}).value() == 0);
    for (auto const offset : {std::uint64_t{30}, std::uint64_t{31}, half, top}) {
      REQUIRE(source.read_at(offset, out).value() == 0);
      REQUIRE(source.stream(offset, top, [](auto) { return true; }).has_value());
    }
    CHECK(log.all().empty());
  }
  SECTION("a stream is one stream a part") {
    REQUIRE(source.stream(5, 20, [](auto) { return true; }).has_value());
    CHECK(log.all() ==
          std::vector<Request>{{Kind::stream, 5, 5}, {Kind::stream, 0, 10}, {Kind::stream, 0, 5}});
  }
  SECTION("a stream that is stopped does not go on to the next part") {
    REQUIRE(source.stream(5, 20, [](auto) { return false; }).has_value());
    CHECK(log.all() == std::vector<Request>{{Kind::stream, 5, 5}});
  }
}

TEST_CASE("Concat never moves bytes up when a part gives too few", "[combinator][concat][error]") {
  Concat const source{Torn(Memory(testing::patterned_bytes(16, 1)), Tear::short_read),
                      Memory(testing::patterned_bytes(16, 2))};
  Bytes out(20);

  auto const n = source.read_at(8, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::truncated);
  CHECK(n.error().context == "source: the data end at offset 15, the size is 16");
}

/// Ends its streams early, without an error.
struct EndsEarly {
  [[nodiscard]] std::uint64_t size() const noexcept { return 16; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return Zeros(16).read_at(offset, out);
  }
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t, ByteSink sink) const {
    return Zeros(10).stream(offset, 16, sink);
  }
};

TEST_CASE("Concat ends a stream with an error when a part ends early",
          "[combinator][concat][error]") {
  Concat const source{EndsEarly{}, Memory(Bytes(8, std::byte{1}))};
  Bytes got;

  auto const ok = source.stream(0, 24, [&](std::span<std::byte const> piece) {
    got.insert(got.end(), piece.begin(), piece.end());
    return true;
  });

  REQUIRE_FALSE(ok.has_value());
  CHECK(ok.error().code == Errc::truncated);
  CHECK(got == Bytes(10));
}

TEST_CASE("Concat passes a part's error on", "[combinator][concat][error]") {
  Concat const source{Memory(Bytes(8)), testing::Flaky(Memory(Bytes(8)))};
  Bytes out(16);

  auto const n = source.read_at(0, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::unavailable);
}

TEST_CASE("Concat::make refuses sizes that overflow", "[combinator][concat][error]") {
  using TwoZeros = Concat<Zeros, Zeros>;

  CHECK(TwoZeros::make(Zeros(half), Zeros(half - 1)).has_value());
  auto const refused = TwoZeros::make(Zeros(half), Zeros(half));
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == std::errc::value_too_large);
  CHECK_FALSE(TwoZeros::make(Zeros(1), Zeros(top)).has_value());
}

TEST_CASE("Concat reads parts that end near 2^63 and 2^64", "[combinator][concat]") {
  auto const source = Concat<Zeros, Memory, Zeros, Memory>::make(
      Zeros(half - 2), Memory(to_bytes("abcd")), Zeros(half - 6), Memory(to_bytes("xyz")));
  REQUIRE(source.has_value());
  REQUIRE(source->size() == top);
  Bytes out(8);

  REQUIRE(source->read_at(half - 4, out).value() == 8);
  CHECK(as_text(out) == std::string_view("\0\0abcd\0\0", 8));
  REQUIRE(source->read_at(top - 2, out).value() == 2);
  CHECK(as_text(std::span(out).first(2)) == "yz");
  CHECK(source->read_at(top, out).value() == 0);
}

TEST_CASE("Concat answers for all its parts", "[combinator][concat]") {
  Concat const source{Memory(Bytes(1)), Zeros(1), Zeros(1)};

  CHECK_FALSE(source.is_remote());
  CHECK(source.describe() == "memory + zeros + zeros");
  CHECK(source.part<0>().size() == 1);
}

}  // namespace concat_test
}  // namespace erofs_oci
