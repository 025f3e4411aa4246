// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/source/zeros.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace zeros_test {

TEST_CASE("Zeros reads as zeros", "[source][zeros][property]") {
  rc::prop("for all sizes", [] {
    auto const size = *rc::gen::inRange<std::size_t>(0, 10'000);

    testing::obeys_laws(AnySource(Zeros(size)), Bytes(size));
  });
}

TEST_CASE("Zeros of every size ends where it says", "[source][zeros]") {
  constexpr auto top = std::uint64_t(-1);
  Zeros const source(top);
  Bytes out(8, std::byte{1});

  CHECK(source.read_at(top - 3, out).value() == 3);
  CHECK(out == to_bytes(std::string_view("\0\0\0\1\1\1\1\1", 8)));
  CHECK(source.read_at(top, out).value() == 0);
}

}  // namespace zeros_test
}  // namespace erofs_oci
