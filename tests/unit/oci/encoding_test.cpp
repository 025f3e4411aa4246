// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/encoding.hpp>  // first: proves that the header stands alone

#include <string>

#include <catch2/catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace {

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

TEST_CASE("percent_encode leaves nothing that a query could misread", "[oci][encoding]") {
  CHECK(percent_encode("repository:a/b:pull") == "repository%3Aa%2Fb%3Apull");
  CHECK(percent_encode("A z-._~&=+%\r\n\xc3") == "A%20z-._~%26%3D%2B%25%0D%0A%C3");
}

}  // namespace
}  // namespace erofs_oci
