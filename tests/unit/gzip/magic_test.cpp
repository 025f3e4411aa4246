// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/magic.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>

namespace erofs_oci {
namespace magic_test {

TEST_CASE("The first bytes show the compression, if all of them are there", "[gzip][magic]") {
  CHECK(compression_of(as_bytes("\x1f\x8b\x08")) == Compression::gzip);
  CHECK(compression_of(as_bytes("\x1f")) == Compression::none);
  CHECK(compression_of(as_bytes("\x28\xb5\x2f\xfd")) == Compression::zstd);
  CHECK(compression_of(as_bytes("\x28\xb5\x2f")) == Compression::none);
  CHECK(compression_of({}) == Compression::none);
  CHECK(compression_of(as_bytes("layer.tar")) == Compression::none);
}

}  // namespace magic_test
}  // namespace erofs_oci
