// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/digest/signature.hpp>  // first: proves that the header stands alone

#include <cstddef>
#include <string>

#include <catch.hpp>

#include <erofs_oci/oci/encoding.hpp>

namespace erofs_oci {
namespace signature_test {

// Made by `openssl genpkey`; for tests alone.
struct KeyPair {
  char const* kind;
  char const* secret;
  char const* open;
};
KeyPair const p256{"P-256",
                   "-----BEGIN PRIVATE KEY-----\n"
                   "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgrrvo2QsrnlwEvjkW\n"
                   "Z+hxascrpJYcphwmWSNUfL4stNuhRANCAAQBPtNQLMTCKBgz9awb9lQeYP2xg+SG\n"
                   "cm6zu5we1dxE2tBYN8kv2yY68VXl3C29ZAydtvmZ0s6yVTur5j+Gcq9m\n"
                   "-----END PRIVATE KEY-----\n",
                   "-----BEGIN PUBLIC KEY-----\n"
                   "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAT7TUCzEwigYM/WsG/ZUHmD9sYPk\n"
                   "hnJus7ucHtXcRNrQWDfJL9smOvFV5dwtvWQMnbb5mdLOslU7q+Y/hnKvZg==\n"
                   "-----END PUBLIC KEY-----\n"};
KeyPair const ed25519{"Ed25519",
                      "-----BEGIN PRIVATE KEY-----\n"
                      "MC4CAQAwBQYDK2VwBCIEIEHPkRbXfRKXkVBYSIXlC5tScsrXQh0dXF9foIZGxR5/\n"
                      "-----END PRIVATE KEY-----\n",
                      "-----BEGIN PUBLIC KEY-----\n"
                      "MCowBQYDK2VwAyEAa7M8uLTFmFG/kB5e1I4OaNhrvxZ40WVXwivruP++B3g=\n"
                      "-----END PUBLIC KEY-----\n"};

TEST_CASE("A signature is good for its message and its key alone", "[digest][signature]") {
  auto const& pair = GENERATE(as<KeyPair>(), p256, ed25519);
  INFO(pair.kind);
  auto const secret = PrivateKey::from_pem(pair.secret).value();
  auto const open = PublicKey::from_pem(pair.open).value();
  auto const message = to_bytes(std::string("message"));

  auto const signature = secret.sign(message);

  CHECK(open.verify(message, signature));
  CHECK(secret.public_key().verify(message, signature));
  CHECK_FALSE(open.verify(to_bytes(std::string("messagf")), signature));
  CHECK_FALSE(open.verify({}, signature));
  CHECK_FALSE(open.verify(message, {}));
  for (std::size_t i = 0; i < signature.size(); ++i) {
    auto other = signature;
    other[i] ^= std::byte{1};
    CHECK_FALSE(open.verify(message, other));
  }
  auto const& stranger = std::string(pair.kind) == "P-256" ? ed25519 : p256;
  CHECK_FALSE(PublicKey::from_pem(stranger.open)->verify(message, signature));
}

TEST_CASE("A signature that `openssl pkeyutl` has made is good", "[digest][signature]") {
  auto const signature = base64_decode(
      "MEUCIB/ZydDVLp1Lg9JX4wcf+o/NqsaECd6zglP/pPdGm42nAiEAhUV05Gaa"
      "l02YOwxhmLow07VsGSnwEHGgh2ppApieNs4=");

  CHECK(PublicKey::from_pem(p256.open)->verify(to_bytes(std::string("message")),
                                               as_bytes(*signature)));
}

TEST_CASE("What is no key of a kind that we use is refused", "[digest][signature][error]") {
  CHECK(PublicKey::from_pem("").error().code == Errc::invalid_argument);
  CHECK(PublicKey::from_pem(p256.secret).error().code == Errc::invalid_argument);
  CHECK(PrivateKey::from_pem(p256.open).error().code == Errc::invalid_argument);
  CHECK(PublicKey::from_pem(std::string(1 << 20, 'x')).error().code == Errc::invalid_argument);
  CHECK(PublicKey::from_pem("-----BEGIN PUBLIC KEY-----\n"
                            "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC0zF2twLPa4Yh2PsEcGG0wVXto\n"
                            "uKwbteTRIM3V1KZV5q8xmzdOm9KxPY/H+ghAOpate2qT4+s72f49ag4B1dKowRS8\n"
                            "9HFbmjwZCcpczlafOXaeP8x3IPLfYsz95gOV0QcSE9ca2UQqpe8biNhw8GJHxFkJ\n"
                            "FUbDRbWvAI7/4kOpKQIDAQAB\n"
                            "-----END PUBLIC KEY-----\n")
            .error()
            .code == Errc::unsupported);
  auto const encrypted = PrivateKey::from_pem(
      "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
      "MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAg11JxFKdVYcgICCAAw\n"
      "DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEGmA3+rUpo84A3fk0P6C++IEgZCK\n"
      "LEdaosCyZRWpmX5FQFp4WfdbAc9cpi32jsVZ83YXEMf7UwquWeWh3MX6Tq0wENa+\n"
      "RsZ1k0ihVWyykjzsqF4XxDlp3c897S+8hy9QKZx6G+IW3b0W/BuAdygEyrGVeTeC\n"
      "w/Pih543Hh2TGy3Iea8zp1xIC7V8UjrtkLJt2prAdSDOZeVW4eQiIx4dWnZVeoI=\n"
      "-----END ENCRYPTED PRIVATE KEY-----\n");
  CHECK(encrypted.error().code == Errc::unsupported);
  CHECK(encrypted.error().message().find("decrypt") != std::string::npos);
}

}  // namespace signature_test
}  // namespace erofs_oci
