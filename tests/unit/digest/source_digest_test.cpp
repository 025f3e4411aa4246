// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/digest/source_digest.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/flaky.hpp>

namespace erofs_oci {
namespace source_digest_test {

TEST_CASE("The digest of a source is that of its bytes", "[digest][source_digest]") {
  auto const bytes = to_bytes("0123456789");
  Memory const source(bytes);

  CHECK(digest_of_source(source).value() == digest_of(bytes));
  CHECK(digest_of_source(source, 2, 5).value() == digest_of(std::span(bytes).subspan(2, 5)));
  CHECK(digest_of_source(source, 8, 100).value() == digest_of(std::span(bytes).subspan(8)));
  CHECK(digest_of_source(source, 10, 1).value() == digest_of({}));
  CHECK(digest_of_source(source, DigestAlgorithm::sha512).value() ==
        digest_of(bytes, DigestAlgorithm::sha512));
}

TEST_CASE("An error of the source is the digest's", "[digest][source_digest][error]") {
  testing::Flaky<Memory> const source(Memory(to_bytes("0123456789")), {.count = 1});
  CHECK_FALSE(digest_of_source(source).has_value());
}

}  // namespace source_digest_test
}  // namespace erofs_oci
