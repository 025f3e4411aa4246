// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/source.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

#include <erofs_oci/combinator/padded.hpp>
#include <erofs_oci/combinator/slice.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/generators.hpp>

namespace erofs_oci {
namespace source_test {

using testing::Archetype;

/// A source that has every optional power.
struct Powerful {
  [[nodiscard]] std::uint64_t size() const noexcept { return 8; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return readable(8, offset, out.size());
  }
  [[nodiscard]] bool is_remote() const { return true; }
  [[nodiscard]] std::string describe() const { return "powerful"; }
};

/// What merely looks like a source.
struct NoSize {
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t, std::span<std::byte>) const {
    return 0u;
  }
};
struct ThrowingSize : NoSize {
  [[nodiscard]] std::uint64_t size() const { return 0; }
};
struct MutableRead {
  [[nodiscard]] std::uint64_t size() const noexcept { return 0; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t, std::span<std::byte>) { return 0u; }
};

static_assert(RandomAccessSource<Powerful>);
static_assert(!RandomAccessSource<NoSize>);
static_assert(!RandomAccessSource<ThrowingSize>);
static_assert(!RandomAccessSource<MutableRead>);
static_assert(!RandomAccessSource<int>);

TEST_CASE("readable is cut at the end and never overflows", "[core][source]") {
  constexpr auto top = std::uint64_t(-1);

  CHECK(readable(10, 0, 10) == 10);
  CHECK(readable(10, 9, 10) == 1);
  CHECK(readable(10, 10, 10) == 0);
  CHECK(readable(10, 11, 10) == 0);
  CHECK(readable(10, top, 10) == 0);
  CHECK(readable(top, top - 1, 10) == 1);
  CHECK(readable(top, 0, std::size_t(-1)) == std::size_t(-1));
  CHECK(readable(0, 0, 1) == 0);
}

TEST_CASE("read_exact says what is missing", "[core][source][error]") {
  Archetype const source(to_bytes("abcdef"));
  Bytes out(4);

  REQUIRE(read_exact(source, 2, out).has_value());
  CHECK(as_text(out) == "cdef");

  auto const refused = read_exact(source, 3, out);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Errc::truncated);
  CHECK(refused.error().context == "wanted 4 bytes at offset 3, there are 3");
}

TEST_CASE("a source without optional powers has their defaults", "[core][source]") {
  Archetype const source(Bytes(4));

  CHECK_FALSE(is_remote(source));
  CHECK(describe(source) == "source");
}

TEST_CASE("optional powers reach through layers that do not change them", "[core][source]") {
  auto slice = Slice<Powerful>::make({}, 1, 2);
  REQUIRE(slice.has_value());
  auto const padded = Padded<Slice<Powerful>>::to_block(*std::move(slice), 512);
  REQUIRE(padded.has_value());

  CHECK(is_remote(*padded));
  CHECK(describe(*padded) == "powerful");
}

TEST_CASE("the default stream hands over pieces and stops when told", "[core][source]") {
  auto const bytes = testing::patterned_bytes(300'000, 1);
  Archetype const source(bytes);
  Bytes got;
  std::size_t pieces = 0;
  auto const take = [&](std::span<std::byte const> piece) {
    got.insert(got.end(), piece.begin(), piece.end());
    return ++pieces < 2;
  };

  REQUIRE(stream(source, 10, 1u << 30, take).has_value());

  CHECK(pieces == 2);
  CHECK(got == testing::slice_of(bytes, 10, 2 * 128 * 1024));
}

TEST_CASE("the default stream passes on an error of a read", "[core][source][error]") {
  struct FailsLater : Archetype {
    using Archetype::Archetype;
    [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset,
                                              std::span<std::byte> out) const {
      if (offset > 0) return fail(Errc::corrupt, "later");
      return Archetype::read_at(offset, out);
    }
  };
  FailsLater const source(Bytes(300'000));
  std::size_t got = 0;

  auto const ok = stream(source, 0, 300'000, [&](std::span<std::byte const> piece) {
    got += piece.size();
    return true;
  });

  REQUIRE_FALSE(ok.has_value());
  CHECK(ok.error().code == Errc::corrupt);
  CHECK(got == 128 * 1024);
}

TEST_CASE("read_by counts the bytes that came, not those it asked for", "[core][source][error]") {
  auto const given = to_bytes("abcdefgh");
  Bytes out(4);
  auto const read = [&](std::size_t n) {
    return read_by(100, 0, out, [&](std::uint64_t, std::uint64_t, ByteSink sink) -> Result<void> {
      (void)sink(std::span(given).first(n));
      return {};
    });
  };

  CHECK(read(4) == 4);
  CHECK(read(8) == 4);  // more than was asked for goes nowhere
  CHECK(as_text(out) == "abcd");
  REQUIRE_FALSE(read(3).has_value());
  CHECK(read(3).error().code == Errc::truncated);
}

}  // namespace source_test
}  // namespace erofs_oci
