// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/source/memory.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace memory_test {

TEST_CASE("Memory reads as the bytes that it was given", "[source][memory][property]") {
  rc::prop("for all bytes", [] {
    auto const bytes = *testing::any_bytes();
    AnySource const source{Memory(bytes)};

    testing::obeys_laws(source, bytes);
    testing::obeys_laws_concurrently(source, bytes, 2);
  });
}

TEST_CASE("Memory streams what it holds", "[source][memory]") {
  auto const source = AnySource(Memory(to_bytes("hello world")));
  Bytes got;

  auto const ok = stream(source, 6, 100, [&](std::span<std::byte const> piece) {
    got.insert(got.end(), piece.begin(), piece.end());
    return true;
  });

  REQUIRE(ok.has_value());
  CHECK(got == to_bytes("world"));
}

}  // namespace memory_test
}  // namespace erofs_oci
