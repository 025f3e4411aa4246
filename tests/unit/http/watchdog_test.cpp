// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/http/watchdog.hpp>  // first: proves that the header stands alone

#include <array>
#include <chrono>
#include <thread>

#include <sys/socket.h>
#include <unistd.h>

#include <catch.hpp>

namespace erofs_oci::detail {
namespace watchdog_test {

using namespace std::chrono_literals;

struct SocketPair {
  SocketPair() {
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
    ours = UniqueFd(ends[0]);
    theirs = UniqueFd(ends[1]);
  }
  UniqueFd ours;
  UniqueFd theirs;
};

SteadyTime in(std::chrono::milliseconds time) {
  return std::chrono::steady_clock::now() + time;
}

TEST_CASE("A watched socket ends when its time is over", "[http][watchdog]") {
  Watchdog watchdog;
  SocketPair sockets;
  Watch watch(watchdog, in(50ms), {}, UniqueFd());
  watch.set_socket(sockets.ours.get());
  char c = 0;

  CHECK(::recv(sockets.ours.get(), &c, 1, 0) == 0);  // else it would wait for ever

  CHECK(watch.end().second);
}

TEST_CASE("A socket that comes after the end of its time ends too", "[http][watchdog]") {
  Watchdog watchdog;
  SocketPair sockets;
  Watch watch(watchdog, in(1ms), {}, UniqueFd());
  std::this_thread::sleep_for(50ms);
  watch.set_socket(sockets.ours.get());
  char c = 0;

  CHECK(::recv(sockets.ours.get(), &c, 1, 0) == 0);
}

TEST_CASE("A later deadline does not delay an earlier one", "[http][watchdog]") {
  Watchdog watchdog;
  SocketPair late_sockets;
  SocketPair early_sockets;
  Watch late(watchdog, in(1h), {}, UniqueFd());
  late.set_socket(late_sockets.ours.get());
  std::this_thread::sleep_for(20ms);
  Watch early(watchdog, in(50ms), {}, UniqueFd());
  early.set_socket(early_sockets.ours.get());
  char c = 0;

  CHECK(::recv(early_sockets.ours.get(), &c, 1, 0) == 0);

  CHECK_FALSE(late.end().second);
  CHECK(::send(late_sockets.ours.get(), "x", 1, MSG_NOSIGNAL) == 1);
}

TEST_CASE("A watched socket ends when a stop is asked for, then or before", "[http][watchdog]") {
  Watchdog watchdog;
  SocketPair sockets;
  std::stop_source stop;
  auto const before = GENERATE(true, false);
  if (before) stop.request_stop();
  Watch watch(watchdog, in(1h), stop.get_token(), UniqueFd());
  watch.set_socket(sockets.ours.get());
  if (!before) stop.request_stop();
  char c = 0;

  CHECK(::recv(sockets.ours.get(), &c, 1, 0) == 0);  // else it would wait for ever

  CHECK(watch.end().second);
}

TEST_CASE("An exchange that has ended is left alone", "[http][watchdog]") {
  Watchdog watchdog;
  SocketPair sockets;
  auto const deadline = in(1s);
  { Watch const watch(watchdog, deadline, {}, UniqueFd()); }
  Watch watch(watchdog, deadline, {}, UniqueFd());
  watch.set_socket(sockets.ours.get());
  auto const [socket, time_over] = watch.end();
  SocketPair later_sockets;
  Watch later(watchdog, deadline + 1ms, {}, UniqueFd());
  later.set_socket(later_sockets.ours.get());
  char c = 0;
  CHECK(::recv(later_sockets.ours.get(), &c, 1, 0) == 0);  // now the other's time is over, too

  CHECK_FALSE(time_over);
  CHECK(socket);
  CHECK(::send(sockets.ours.get(), "x", 1, MSG_NOSIGNAL) == 1);
}

TEST_CASE("A write to a closed socket does not kill", "[http][watchdog]") {
  SocketPair sockets;
  sockets.theirs.reset();
  sigset_t pending;
  {
    NoSigpipe const guard;
    CHECK(::write(sockets.ours.get(), "x", 1) < 0);
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGPIPE) == 1);
  }
  sigpending(&pending);
  CHECK(sigismember(&pending, SIGPIPE) == 0);
}

}  // namespace watchdog_test
}  // namespace erofs_oci::detail
