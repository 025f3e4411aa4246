// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/endian.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <array>
#include <cstdint>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace endian_test {

template <std::size_t... Values>
constexpr auto raw() {
  return std::array{static_cast<std::byte>(Values)...};
}

TEST_CASE("integers are loaded in the stated order", "[core][endian]") {
  constexpr auto bytes = raw<0x01, 0x82, 0x03, 0x84, 0x05, 0x86, 0x07, 0x88>();
  auto const first = [&]<std::size_t N>() { return std::span(bytes).template first<N>(); };

  CHECK(load_le<std::uint8_t>(first.template operator()<1>()) == 0x01);
  CHECK(load_be<std::uint8_t>(first.template operator()<1>()) == 0x01);
  CHECK(load_le<std::uint16_t>(first.template operator()<2>()) == 0x8201);
  CHECK(load_be<std::uint16_t>(first.template operator()<2>()) == 0x0182);
  CHECK(load_le<std::uint32_t>(first.template operator()<4>()) == 0x84038201);
  CHECK(load_be<std::uint32_t>(first.template operator()<4>()) == 0x01820384);
  CHECK(load_le<std::uint64_t>(first.template operator()<8>()) == 0x8807860584038201);
  CHECK(load_be<std::uint64_t>(first.template operator()<8>()) == 0x0182038405860788);
}

template <class T>
void round_trips(char const* name) {
  rc::prop(name, [] {
    auto const value = *rc::gen::arbitrary<T>();
    std::array<std::byte, sizeof(T)> little{};
    std::array<std::byte, sizeof(T)> big{};

    store_le(value, std::span(little));
    store_be(value, std::span(big));

    RC_ASSERT(load_le<T>(little) == value);
    RC_ASSERT(load_be<T>(big) == value);
    std::ranges::reverse(big);
    RC_ASSERT(little == big);
  });
}

TEST_CASE("what is stored is loaded again", "[core][endian][property]") {
  round_trips<std::uint8_t>("for all 8-bit values");
  round_trips<std::uint16_t>("for all 16-bit values");
  round_trips<std::uint32_t>("for all 32-bit values");
  round_trips<std::uint64_t>("for all 64-bit values");
}

TEST_CASE("what is appended is loaded again", "[core][endian][property]") {
  rc::prop("for all values, in 8 bytes and in 4", [](std::uint64_t value) {
    Bytes bytes{std::byte{7}};
    append_le(bytes, value, 8);
    append_le(bytes, value, 4);
    RC_ASSERT(bytes.size() == 13U);
    auto const all = std::span<std::byte const>(bytes);
    RC_ASSERT(load_le<std::uint64_t>(all.subspan<1, 8>()) == value);
    RC_ASSERT(load_le<std::uint32_t>(all.subspan<9, 4>()) == static_cast<std::uint32_t>(value));
  });
}

}  // namespace endian_test
}  // namespace erofs_oci
