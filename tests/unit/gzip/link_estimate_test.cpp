// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/link_estimate.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <cstdint>

#include <catch.hpp>

namespace erofs_oci {
namespace link_estimate_test {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t megabyte = 1'000'000;

TEST_CASE("A link's product is known from the third answer on", "[gzip][fetch]") {
  LinkEstimate link;
  for (auto const known : {false, false, true, true}) {
    link.note(milliseconds(20), megabyte, milliseconds(8));  // 125 MB a second
    CHECK(link.delay_product() == (known ? 2'500'000 : 0));
  }
}

TEST_CASE("What a disk answers, and what is too short to tell, is not counted", "[gzip][fetch]") {
  LinkEstimate link;
  for (int i = 0; i < 10; ++i) {
    link.note(std::chrono::microseconds(900), megabyte, milliseconds(1));
    link.note(milliseconds(20), 100 * 1024, milliseconds(1));
    link.note(milliseconds(20), megabyte, milliseconds(0));
  }
  CHECK(link.delay_product() == 0);
}

TEST_CASE("Some answers that are late, or come at once, change nothing", "[gzip][fetch]") {
  LinkEstimate link;
  for (int i = 0; i < 5; ++i) link.note(milliseconds(20), megabyte, milliseconds(8));
  link.note(seconds(5), megabyte, milliseconds(8));
  link.note(milliseconds(20), megabyte, std::chrono::microseconds(50));
  link.note(milliseconds(20), megabyte, seconds(9));
  CHECK(link.delay_product() == 2'500'000);
}

TEST_CASE("So it is if they are the first ones", "[gzip][fetch]") {
  LinkEstimate link;
  for (int i = 0; i < 2; ++i) link.note(seconds(5), megabyte, seconds(9));
  for (int i = 0; i < 4; ++i) link.note(milliseconds(20), megabyte, milliseconds(8));
  CHECK(link.delay_product() == 2'500'000);
}

TEST_CASE("A link that has become another one is known after 8 answers", "[gzip][fetch]") {
  LinkEstimate link;
  for (int i = 0; i < 100; ++i) link.note(milliseconds(20), megabyte, milliseconds(8));
  for (int i = 0; i < 8; ++i) link.note(milliseconds(40), megabyte, milliseconds(80));
  CHECK(link.delay_product() == 500'000);
}

}  // namespace link_estimate_test
}  // namespace erofs_oci
