// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/http/hedging.hpp>  // first: proves that the header stands alone

#include <string>

#include <catch.hpp>

namespace erofs_oci {
namespace hedging_test {

using namespace std::chrono_literals;

void answer(Hedging& hedging, std::string const& host, std::chrono::milliseconds time,
            std::size_t times = 1) {
  for (std::size_t i = 0; i < times; ++i) {
    static_cast<void>(hedging.begin(host));
    hedging.note(host, time);
  }
}

TEST_CASE("A second request waits for what 95 of 100 answers took", "[http][hedge]") {
  Hedging hedging;
  for (int i = 1; i <= 100; ++i) answer(hedging, "a", std::chrono::milliseconds(10 * i));

  CHECK(hedging.begin("a") == 960ms);
  CHECK(hedging.begin("b") == std::nullopt);
}

TEST_CASE("Too few answers tell nothing, and fast ones are no reason to hurry", "[http][hedge]") {
  Hedging hedging;
  answer(hedging, "a", 1ms, Hedging::fewest - 1);
  CHECK(hedging.begin("a") == std::nullopt);
  answer(hedging, "a", 1ms);

  CHECK(hedging.begin("a") == Hedging::least);
}

TEST_CASE("Old answers are forgotten", "[http][hedge]") {
  Hedging hedging;
  answer(hedging, "a", 10s, 1000);
  answer(hedging, "a", 200ms, Hedging::most);

  CHECK(hedging.begin("a") == 200ms);
}

TEST_CASE("No more than one request in 20 is sent twice, nor many at once after a quiet time",
          "[http][hedge]") {
  Hedging hedging;
  CHECK_FALSE(hedging.spend());
  for (std::uint64_t i = 1; i <= 2000; ++i) {
    answer(hedging, "a", 1ms);
    static_cast<void>(hedging.spend());
    REQUIRE(hedging.counts().sent * Hedging::share <= i);
  }
  CHECK(hedging.counts().sent == 100);

  answer(hedging, "a", 1ms, 10'000);
  int at_once = 0;
  while (hedging.spend()) ++at_once;
  CHECK(at_once == 5);
}

TEST_CASE("However many hosts there are, few are remembered", "[http][hedge]") {
  Hedging hedging;
  answer(hedging, "first", 1ms, Hedging::fewest);
  for (std::size_t i = 1; i <= Hedging::most_hosts; ++i) answer(hedging, std::to_string(i), 1ms);

  CHECK(hedging.begin("first") == std::nullopt);
}

}  // namespace hedging_test
}  // namespace erofs_oci
