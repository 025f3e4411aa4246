// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/wait.hpp>  // first: proves that the header stands alone

#include <array>
#include <atomic>
#include <csignal>
#include <thread>

#include <pthread.h>

#include <catch.hpp>

#include <erofs_oci/posix/descriptor.hpp>

namespace erofs_oci {
namespace wait_test {

using namespace std::chrono_literals;
using PollClock = std::chrono::steady_clock;

TEST_CASE("What is ready is seen, even after the deadline", "[posix][wait]") {
  auto [ours, theirs] = socket_pair().value();
  std::array<pollfd, 1> fds{{{ours.get(), POLLIN, 0}}};

  CHECK_FALSE(poll_until(fds, PollClock::now() - 1h).value());
  CHECK_FALSE(poll_until(fds, PollClock::now() + 1ms).value());
  theirs.reset();
  CHECK(poll_until(fds, PollClock::now() - 1h).value());
  CHECK(fds[0].revents != 0);
  CHECK(poll_until(fds, PollClock::time_point::max() - 1h).value());
}

TEST_CASE("A signal does not end the wait", "[posix][wait]") {
  static std::atomic<int> signals{0};
  struct sigaction action{};
  action.sa_handler = [](int) { ++signals; };
  struct sigaction before{};
  REQUIRE(::sigaction(SIGUSR1, &action, &before) == 0);
  auto [ours, theirs] = socket_pair().value();
  auto const waiting = ::pthread_self();
  std::jthread other([waiting, peer = std::move(theirs)]() mutable {
    while (signals < 3) {
      ::pthread_kill(waiting, SIGUSR1);
      std::this_thread::yield();
    }
    peer.reset();
  });
  std::array<pollfd, 1> fds{{{ours.get(), POLLIN, 0}}};

  CHECK(poll_until(fds, PollClock::now() + 1h).value());

  other.join();
  CHECK(signals >= 3);
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_CASE("A condition is asked until it holds or the time is over", "[posix][wait]") {
  int asked = 0;
  CHECK(wait_for(1h, [&] { return ++asked == 3; }, 0ms));
  CHECK(asked == 3);
  CHECK_FALSE(wait_for(0ms, [] { return false; }));
}

}  // namespace wait_test
}  // namespace erofs_oci
