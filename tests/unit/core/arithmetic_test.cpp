// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/arithmetic.hpp>  // first: proves that the header stands alone

#include <cstdint>

#include <catch.hpp>

namespace erofs_oci {
namespace arithmetic_test {

constexpr auto top = std::uint64_t(-1);
constexpr auto half = std::uint64_t{1} << 63;

TEST_CASE("8-bit arithmetic agrees with int's, for all values", "[core][arithmetic]") {
  auto const fits = [](unsigned wide) {
    return wide <= 255 ? std::optional(static_cast<std::uint8_t>(wide)) : std::nullopt;
  };
  auto wrong = 0;
  for (unsigned a = 0; a < 256; ++a) {
    for (unsigned b = 0; b < 256; ++b) {
      auto const x = static_cast<std::uint8_t>(a);
      auto const y = static_cast<std::uint8_t>(b);
      wrong += checked_add(x, y) != fits(a + b);
      wrong += checked_mul(x, y) != fits(a * b);
      if (b > 0) wrong += align_up(x, y) != fits((a + b - 1) / b * b);
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("64-bit sums and products know their limit", "[core][arithmetic]") {
  CHECK(checked_add(top - 1, std::uint64_t{1}) == top);
  CHECK_FALSE(checked_add(top, std::uint64_t{1}));
  CHECK_FALSE(checked_add(half, half));
  CHECK(checked_mul(half - 1, std::uint64_t{2}) == top - 1);
  CHECK_FALSE(checked_mul(half, std::uint64_t{2}));
  CHECK(checked_mul(std::uint64_t{0}, top) == 0u);
  CHECK(align_up(half - 5, std::uint64_t{4096}) == half);
  CHECK_FALSE(align_up(top - 5, std::uint64_t{4096}));
}

TEST_CASE("narrow keeps what fits", "[core][arithmetic]") {
  CHECK(narrow<std::uint32_t>(std::uint64_t{0xFFFFFFFF}) == 0xFFFFFFFFu);
  CHECK_FALSE(narrow<std::uint32_t>(std::uint64_t{0x100000000}));
  CHECK_FALSE(narrow<std::uint32_t>(-1));
  CHECK_FALSE(narrow<std::int64_t>(half));
  CHECK(narrow<std::int8_t>(-128) == std::int8_t{-128});
}

}  // namespace arithmetic_test
}  // namespace erofs_oci
