// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/mount/front_end.hpp>  // first: proves that the header stands alone

#include <cstddef>
#include <utility>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch.hpp>
#include <child.hpp>

#include <erofs_oci/nbd/protocol.hpp>

#include "poll_once.hpp"

namespace erofs_oci {
namespace front_end_test {

/// A device of another process, so that none of the kernel's is needed.
MountFrontEnd device() {
  MountFrontEnd made(MountWay::netlink);
  WorkerImage image;
  image.size = image.zeros_from = 8192;
  REQUIRE(made.attach(image, MountFrontEnd::Attach::beside, 0).has_value());
  return made;
}

/// A device's socket on its way, with a part of a request; the kernel's end goes to `kernel`.
MountMessage sockets(UniqueFd& kernel) {
  auto ends = socket_pair().value();
  kernel = std::move(ends.second);
  MountMessage message{MountMessage::Kind::sockets, {}, {}, {}};
  message.fds.push_back(std::move(ends.first));
  message.fds.push_back(to_memory_file(Bytes(3, std::byte{7})).value());
  return message;
}

TEST_CASE("A device goes from process to process with what is unread", "[mount][front_end]") {
  UniqueFd kernel;
  auto before = device();
  REQUIRE(before.adopt(sockets(kernel)).has_value());
  before.pause();
  REQUIRE(before.is_idle());
  auto given = before.release();
  REQUIRE(given.has_value());
  CHECK(from_memory_file(given->fds.at(1)).value() == Bytes(3, std::byte{7}));

  SECTION("another one serves it") {
    auto after = device();
    CHECK(after.adopt(*std::move(given)).has_value());
    kernel.reset();
    test::poll_once(after);
    CHECK(after.device()->ended() == NbdRelayEnd::hung_up);
  }
  SECTION("or this one again") {
    CHECK(before.resume(*std::move(given)).has_value());
    kernel.reset();
    test::poll_once(before);
    CHECK(before.device()->ended() == NbdRelayEnd::hung_up);
  }
}

TEST_CASE("A device that cannot be given stays", "[mount][front_end][error]") {
  auto const status = test::in_a_child([] {
    UniqueFd kernel;
    auto end = device();
    if (!end.adopt(sockets(kernel))) return 1;
    end.pause();
    rlimit const none{3, 3};
    if (::setrlimit(RLIMIT_NOFILE, &none) != 0) return 2;
    if (end.release()) return 3;
    if (!end.resume({})) return 4;
    kernel.reset();
    test::poll_once(end);
    return end.device()->ended() == NbdRelayEnd::hung_up ? 0 : 5;
  });
  CHECK(status == 0);
}

TEST_CASE("A device that has gone cannot be verified, and no reads wait for it",
          "[mount][front_end][error]") {
  MountFrontEnd none(MountWay::netlink);
  CHECK(none.begin_verify([](auto const&) {}).error().code == Errc::unavailable);
  CHECK_FALSE(none.has_reads());
  CHECK_FALSE(none.is_idle());
  none.drop_worker(EngineEnd::crashed);
  none.pause();
  none.dismiss();
}

TEST_CASE("What is no front end is refused", "[mount][front_end][error]") {
  auto end = device();
  CHECK(end.adopt({MountMessage::Kind::sockets, {}, {}, {}}).error().code == Errc::protocol);
  MountFrontEnd connection(MountWay::fuse_file);
  CHECK(connection.adopt({MountMessage::Kind::connected, {}, {}, {}}).error().code ==
        Errc::protocol);
  CHECK_FALSE(connection.is_device());
  CHECK(connection.port().value().fds.empty());  // the worker is to mount
}

TEST_CASE("Requests in flight are those of a server, and not any memory",
          "[mount][front_end][error]") {
  MountFrontEnd end(MountWay::fuse_file);
  FuseConnection connection;
  connection.device = UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
  connection.inflight = to_memory_file(Bytes(4097)).value();
  CHECK(end.set(std::move(connection)).error().code == Errc::protocol);
  CHECK_FALSE(end.connection().has_value());
}

TEST_CASE("A connection is shared, and outlives the one that gives it", "[mount][front_end]") {
  MountFrontEnd end(MountWay::fuse_file);
  FuseConnection connection;
  connection.device = UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
  connection.opening = Bytes(5, std::byte{1});
  connection.inflight = FuseInflight::make(1).value().share().value();
  REQUIRE(end.set(std::move(connection)).has_value());

  auto const given = end.release();
  REQUIRE(given.has_value());
  CHECK(given->fds.size() == 3);
  CHECK(end.connection()->device);
  CHECK(end.port().value().fds.size() == 3);
}

}  // namespace front_end_test
}  // namespace erofs_oci
