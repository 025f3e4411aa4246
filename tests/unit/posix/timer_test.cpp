// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/timer.hpp>  // first: proves that the header stands alone

#include <chrono>

#include <poll.h>

#include <catch.hpp>

namespace erofs_oci {
namespace timer_test {

using std::chrono::hours;
using std::chrono::milliseconds;

bool is_readable(Timer const& timer, int wait = 0) {
  pollfd fd{timer.fd(), POLLIN, 0};
  return ::poll(&fd, 1, wait) == 1;
}

constexpr int long_enough = 60'000;  // milliseconds

TEST_CASE("A timer runs once, or again and again", "[posix]") {
  auto const timer = Timer::open().value();
  CHECK_FALSE(is_readable(timer));
  REQUIRE(timer.once(milliseconds(1)).has_value());
  CHECK(is_readable(timer, long_enough));
  timer.clear();
  CHECK_FALSE(is_readable(timer, 20));

  REQUIRE(timer.every(milliseconds(1)).has_value());
  for (int i = 0; i < 3; ++i) {
    CHECK(is_readable(timer, long_enough));
    timer.clear();
  }
}

TEST_CASE("A timer that is set anew forgets the time before", "[posix]") {
  auto const timer = Timer::open().value();
  REQUIRE(timer.every(milliseconds(1)).has_value());
  CHECK(is_readable(timer, long_enough));
  REQUIRE(timer.once(hours(1) + milliseconds(1)).has_value());
  CHECK_FALSE(is_readable(timer, 20));
}

TEST_CASE("What is no timer is never readable", "[posix][error]") {
  Timer const none;
  CHECK(none.fd() == -1);
  none.clear();
  CHECK(none.once(milliseconds(1)).error().code == std::errc::bad_file_descriptor);
}

}  // namespace timer_test
}  // namespace erofs_oci
