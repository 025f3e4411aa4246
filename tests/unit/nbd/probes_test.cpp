// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/probes.hpp>  // first: proves that the header stands alone

#include <array>
#include <stdexcept>

#include <catch.hpp>

namespace erofs_oci::nbd {
namespace probes_test {

TEST_CASE("A probe is called back once, and its memory is released even if that throws",
          "[nbd][probes]") {
  std::array<std::byte, 8> const arena{std::byte{1}, std::byte{2}, std::byte{3}};
  Probes probes;
  int told = 0;
  std::size_t given_back = 0;
  auto const on_told = [&](PendingRead const& read) { given_back += read.length; };
  probes.begin();
  probes.end({.length = 2,
              .place = 1,
              .on_probe =
                  [&](auto bytes) {
                    CHECK((*bytes)[0] == std::byte{2});
                    ++told;
                    probes.begin();  // one more, from inside
                    probes.end({.length = 1,
                                .on_probe =
                                    [&](auto none) {
                                      CHECK_FALSE(none);
                                      ++told;
                                    }},
                               Errno::io);
                  }},
             Errno::none);
  CHECK(told == 0);
  probes.tell(arena, on_told);
  CHECK(told == 2);
  CHECK(given_back == 3);
  probes.tell(arena, on_told);
  CHECK(told == 2);

  probes.begin();
  probes.end({.length = 4, .on_probe = [](auto) { throw std::runtime_error("told"); }},
             Errno::none);
  CHECK_THROWS(probes.tell(arena, on_told));
  CHECK(given_back == 7);
}

}  // namespace probes_test
}  // namespace erofs_oci::nbd
