// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/bytes.hpp>  // first: proves that the header stands alone

#include <array>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace bytes_test {

TEST_CASE("a text survives being bytes", "[core][bytes][property]") {
  rc::prop("for all texts", [] {
    auto const text = *rc::gen::arbitrary<std::string>();

    RC_ASSERT(as_text(as_bytes(text)) == text);
    RC_ASSERT(std::string(as_text(to_bytes(text))) == text);
    RC_ASSERT(to_bytes(as_bytes(text)) == to_bytes(text));
  });
}

TEST_CASE("hex writes two lower-case digits a byte", "[core][bytes]") {
  CHECK(hex({}).empty());
  CHECK(hex(std::array{std::byte{0x00}, std::byte{0x0F}, std::byte{0xA5}, std::byte{0xFF}}) ==
        "000fa5ff");
}

}  // namespace bytes_test
}  // namespace erofs_oci
