// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/signals.hpp>  // first: proves that the header stands alone

#include <csignal>
#include <cstdint>
#include <functional>
#include <thread>

#include <poll.h>
#include <pthread.h>

#include <catch.hpp>

#include <erofs_oci/nbd/wakeup.hpp>

namespace erofs_oci {
namespace signals_test {

// Signals stay blocked in a thread that has taken them.
void in_a_thread(std::function<void()> const& body) {
  std::jthread const thread(body);
}

TEST_CASE("A signal is taken once, and none is waited for", "[posix]") {
  int first = -1;
  int second = -1;
  int third = -1;
  in_a_thread([&] {
    auto const signals = Signals::take({SIGUSR1}).value();
    first = signals.take_pending();
    std::raise(SIGUSR1);
    second = signals.take_pending();
    third = signals.take_pending();
  });
  CHECK(first == 0);
  CHECK(second == SIGUSR1);
  CHECK(third == 0);
}

TEST_CASE("Who waits for a signal gets the next one", "[posix]") {
  int got = -1;
  in_a_thread([&] {
    auto const signals = Signals::take({SIGUSR1}).value();
    std::jthread const sender([thread = ::pthread_self()] { ::pthread_kill(thread, SIGUSR1); });
    got = signals.wait();
  });
  CHECK(got == SIGUSR1);
}

TEST_CASE("A wait for a signal ends with another descriptor", "[posix]") {
  bool before = true;
  bool after = false;
  in_a_thread([&] {
    auto const signals = Signals::take({SIGUSR1}).value();
    auto const other = nbd::Wakeup::open().value();
    other.notify();
    before = signals.wait_or(other.fd());
    std::raise(SIGUSR1);
    after = signals.wait_or(other.fd());
  });
  CHECK_FALSE(before);
  CHECK(after);
}

}  // namespace signals_test
}  // namespace erofs_oci
