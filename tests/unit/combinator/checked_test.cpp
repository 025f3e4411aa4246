// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/checked.hpp>  // first: proves that the header stands alone

#include <string>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace checked_test {

using testing::Archetype;
using testing::Flaky;
using testing::Tear;
using testing::Torn;

static_assert(RandomAccessSource<Checked<Checked<AnySource>>>);

/// Keeps the reports.
struct Reported {
  std::vector<std::string>* violations;
  void operator()(std::string const& violation) const { violations->push_back(violation); }
};

constexpr auto take_all = [](std::span<std::byte const>) { return true; };
constexpr auto take_one = [](std::span<std::byte const>) { return false; };

TEST_CASE("Checked reads as its source", "[combinator][checked][property]") {
  rc::prop("for all bytes, without a report", [] {
    auto const bytes = *testing::any_bytes();
    std::vector<std::string> violations;

    testing::obeys_laws(AnySource(Checked(Archetype(bytes), Reported{&violations})), bytes);

    RC_ASSERT(violations.empty());
  });
}

TEST_CASE("Checked reports a read that yields the wrong number of bytes",
          "[combinator][checked][error]") {
  auto const [tear, offset, code, words] = GENERATE(table<Tear, std::uint64_t, Errc, std::string>(
      {{Tear::short_read, 0, Errc::truncated, "S1: read of 8 bytes at offset 0 yields 7, not 8"},
       {Tear::invented_end, 16, Errc::protocol, "S1: read of 8 bytes at offset 16 yields 8, not 0"},
       {Tear::error_at_end, 16, Errc::protocol,
        "S1: reading nothing at offset 16 is an error: torn: unexpected end of data"}}));
  std::vector<std::string> violations;
  Checked const source(Torn(Memory(Bytes(16)), tear), Reported{&violations});
  Bytes out(8);

  auto const n = source.read_at(offset, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == code);
  CHECK(violations == std::vector<std::string>{"source: " + words});
}

TEST_CASE("Checked reports a stream that breaks its promises", "[combinator][checked][error]") {
  std::vector<std::string> violations;
  auto const checked = [&](Tear tear) {
    return Checked(Torn(Memory(Bytes(16)), tear), Reported{&violations});
  };

  SECTION("too few bytes") {
    CHECK(checked(Tear::stream_shifts).stream(0, 16, take_all).error().code == Errc::truncated);
  }
  SECTION("too many bytes, of which the sink sees none") {
    std::size_t got = 0;
    auto const ok = checked(Tear::stream_repeats).stream(0, 16, [&](auto piece) {
      got += piece.size();
      return true;
    });
    CHECK(ok.error().code == Errc::protocol);
    CHECK(got == 16);
  }
  SECTION("a sink that is called after it has stopped the stream") {
    CHECK(checked(Tear::stream_deaf).stream(0, 16, take_one).error().code == Errc::protocol);
  }
  SECTION("a stop by the sink that is made an error") {
    CHECK(checked(Tear::stream_stop_error).stream(0, 16, take_one).error().code == Errc::protocol);
  }
  CHECK(violations.size() == 1);
}

TEST_CASE("Checked lets honest errors pass and reports those without a code",
          "[combinator][checked][error]") {
  std::vector<std::string> violations;
  Bytes out(8);

  auto const honest = Checked(Flaky(Memory(Bytes(8))), Reported{&violations}).read_at(0, out);
  CHECK(honest.error().code == Errc::unavailable);
  CHECK(violations.empty());

  auto const empty =
      Checked(Flaky(Memory(Bytes(8)), {.error = {}}), Reported{&violations}).read_at(0, out);
  CHECK(empty.error().code == Errc::protocol);
  CHECK(violations == std::vector<std::string>{"memory: S5: an error without a code"});
}

}  // namespace checked_test
}  // namespace erofs_oci
