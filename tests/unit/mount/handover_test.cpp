// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/mount/handover.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <catch.hpp>

#include <erofs_oci/posix/descriptor.hpp>

namespace erofs_oci {
namespace handover_test {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

/// A handover, and the process that it goes to.
struct Fixture {
  Fixture() : successor(UniqueFd()) {
    auto ends = socket_pair(SOCK_SEQPACKET).value();
    handover.begin(std::move(ends.first));
    successor = MountChannel(std::move(ends.second));
  }

  Result<void> send(steady_clock::time_point deadline = steady_clock::now() + 1h) {
    MountMessage message{MountMessage::Kind::sockets, "x", {}, {}};
    message.fds.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    return handover.send(std::move(message), deadline);
  }

  MountHandover handover;
  MountChannel successor;
};

TEST_CASE("The other process gets what it asked for, and answers", "[mount][handover]") {
  Fixture f;
  CHECK(f.handover.fd() == -1);
  REQUIRE(f.send().has_value());
  CHECK(f.handover.receive() == std::nullopt);
  CHECK(f.successor.receive_within(10s).value().fds.size() == 1);

  SECTION("it serves") {
    f.successor.tell({MountMessage::Kind::taken, {}, {}, {}});
    CHECK(f.handover.receive() == Confirmation::taken);
  }
  SECTION("it makes no sense") {
    f.successor.tell({MountMessage::Kind::opened, {}, {}, {}});
    CHECK(f.handover.receive() == Confirmation::unknown);
  }
  SECTION("it has ended") {
    f.successor.close();
    pollfd wait{f.handover.fd(), POLLIN, 0};
    CHECK(::poll(&wait, 1, 10'000) == 1);
    CHECK(f.handover.receive() == Confirmation::refused);
  }
  auto const given = f.handover.end();
  REQUIRE(given.has_value());
  CHECK(given->fds.size() == 1);  // this process has it still
  CHECK(f.handover.fd() == -1);
  CHECK(f.handover.timer_fd() == -1);
}

TEST_CASE("A process that has ended before is sent nothing", "[mount][handover][error]") {
  Fixture f;
  f.successor.close();
  CHECK(f.send().error().code == std::errc::broken_pipe);
  CHECK(f.handover.end().has_value());
}

TEST_CASE("The deadline of an answer can be polled", "[mount][handover]") {
  Fixture f;
  REQUIRE(f.send(steady_clock::now()).has_value());
  pollfd wait{f.handover.timer_fd(), POLLIN, 0};
  CHECK(::poll(&wait, 1, 20'000) == 1);
}

}  // namespace handover_test
}  // namespace erofs_oci
