// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/source/memory.hpp>  // first: proves that the header stands alone

#include <catch2/catch.hpp>

#include <erofs_oci/core/any_source.hpp>

namespace erofs_oci {
namespace {

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

}  // namespace
}  // namespace erofs_oci
