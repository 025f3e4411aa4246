// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/digest/sha256.hpp>  // first: proves that the header stands alone

#include <string>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace sha256_test {

TEST_CASE("Known texts have their published digests", "[digest]") {
  CHECK(digest_of(as_bytes("abc")).to_string() ==
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(digest_of({}).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(digest_of(as_bytes("abc"), DigestAlgorithm::sha512).to_string() ==
        "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f");
}

TEST_CASE("A hash does not see how its input was cut", "[digest][property]") {
  rc::prop("for all texts and cuts", [](std::string const& text) {
    auto const cut = *rc::gen::inRange<std::size_t>(0, text.size() + 1);
    Sha256 hash;

    hash.update(as_bytes(text).first(cut));
    hash.update(as_bytes(text).subspan(cut));

    RC_ASSERT(hash.finish() == digest_of(as_bytes(text)));
  });
}

}  // namespace sha256_test
}  // namespace erofs_oci
