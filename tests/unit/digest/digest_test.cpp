// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/digest/digest.hpp>  // first: proves that the header stands alone

#include <string>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace digest_test {

TEST_CASE("Digest::parse refuses what is not exactly a digest", "[digest][error]") {
  auto const hex = std::string(64, 'a');
  auto const bad = std::vector<std::string>{"",
                                            "sha256",
                                            "sha256:",
                                            hex,
                                            "sha256:" + hex.substr(1),
                                            "sha256:" + hex + "a",
                                            "sha256:" + hex.substr(1) + "A",
                                            "sha256:" + hex.substr(1) + "g",
                                            "sha256:" + hex + "\n",
                                            " sha256:" + hex,
                                            "SHA256:" + hex,
                                            "sha512:" + hex,
                                            "sha256:" + hex + hex,
                                            "sha256:../" + hex.substr(3)};
  for (auto const& text : bad) {
    INFO(text);
    CHECK_FALSE(Digest::parse(text).has_value());
  }
  CHECK(Digest::parse("blake3:" + hex).error().code == Errc::unsupported);
}

TEST_CASE("Digests survive printing", "[digest][property]") {
  rc::prop("for all bytes, parse(to_string(d)) == d", [](bool longer) {
    auto const algorithm = longer ? DigestAlgorithm::sha512 : DigestAlgorithm::sha256;
    auto const raw = *rc::gen::container<std::vector<std::uint8_t>>(
        digest_size(algorithm), rc::gen::arbitrary<std::uint8_t>());

    auto const digest = Digest::make(algorithm, std::as_bytes(std::span(raw)));

    RC_ASSERT(digest.has_value());
    RC_ASSERT(*Digest::parse(digest->to_string()) == *digest);
    RC_ASSERT(digest->hex() == hex(std::as_bytes(std::span(raw))));
  });
}

TEST_CASE("Digests differ if any bit or the algorithm does", "[digest][property]") {
  rc::prop("for all digests and all positions", [] {
    auto raw =
        *rc::gen::container<std::vector<std::uint8_t>>(32, rc::gen::arbitrary<std::uint8_t>());
    auto const a = *Digest::make(DigestAlgorithm::sha256, std::as_bytes(std::span(raw)));
    raw[*rc::gen::inRange<std::size_t>(0, 32)] ^=
        static_cast<std::uint8_t>(1U << *rc::gen::inRange(0, 8));
    auto const b = *Digest::make(DigestAlgorithm::sha256, std::as_bytes(std::span(raw)));

    RC_ASSERT(a != b);
    RC_ASSERT((a < b) != (b < a));
  });
  auto const zeros = Bytes(64);
  CHECK(*Digest::make(DigestAlgorithm::sha512, zeros) != Digest());
  CHECK_FALSE(Digest::make(DigestAlgorithm::sha256, zeros).has_value());
}

}  // namespace digest_test
}  // namespace erofs_oci
