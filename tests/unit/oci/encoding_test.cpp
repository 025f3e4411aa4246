// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/encoding.hpp>  // first: proves that the header stands alone

#include <string>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace encoding_test {

TEST_CASE("base64 is RFC 4648's", "[oci][encoding]") {
  CHECK(base64_encode("") == "");
  CHECK(base64_encode("f") == "Zg==");
  CHECK(base64_encode("fo") == "Zm8=");
  CHECK(base64_encode("foobar") == "Zm9vYmFy");
  CHECK(base64_encode("\xff\xfe\xfd") == "//79");
  CHECK(base64_decode("Zg") == "f");
  CHECK(base64_decode("Zm8=\n") == "fo");
  for (auto const* text : {"Z", "Zm9v!", "Zm9vY", "Z=m9", "Zm 9v", "Zg==="}) {
    INFO(text);
    CHECK_FALSE(base64_decode(text).has_value());
  }
}

TEST_CASE("base64 survives a round trip", "[oci][encoding][property]") {
  rc::prop("for all texts, decode(encode(x)) == x",
           [](std::string const& text) { RC_ASSERT(base64_decode(base64_encode(text)) == text); });
}

}  // namespace encoding_test
}  // namespace erofs_oci
