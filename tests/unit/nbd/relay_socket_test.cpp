// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/relay_socket.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

#include <sys/socket.h>

namespace erofs_oci::nbd {
namespace relay_socket_test {

struct SocketAndKernel {
  UniqueFd kernel{};
  RelaySocket socket;

  static SocketAndKernel make(std::size_t limit) {
    std::array<int, 2> fds{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) == 0);
    return {UniqueFd(fds[0]), RelaySocket(UniqueFd(fds[1]), limit)};
  }

  void ask(std::uint64_t cookie) const {
    auto const raw = encode(Request{0, static_cast<std::uint16_t>(Command::flush), cookie, 0, 0});
    REQUIRE(::send(kernel.get(), raw.data(), raw.size(), MSG_NOSIGNAL) == ssize_t(raw.size()));
  }
};

TEST_CASE("A request is in flight until its reply is sent", "[nbd][relay]") {
  auto [kernel, socket] = SocketAndKernel::make(1);
  SocketAndKernel const asks{UniqueFd(::dup(kernel.get())), RelaySocket({}, 1)};
  asks.ask(1);
  asks.ask(2);
  CHECK(socket.events(false) == POLLIN);
  REQUIRE(socket.receive() == RelaySocket::Fill::some);
  REQUIRE(socket.next().value()->cookie == 1);
  socket.take();
  CHECK_FALSE(socket.has_room());
  CHECK_FALSE(socket.is_idle());
  CHECK(socket.next().value()->cookie == 2);
  CHECK(socket.events(false) == 0);  // nothing is received before this one is taken

  socket.reply({.header = encode(SimpleReply{Errno::none, 1})});
  CHECK(socket.events(false) == POLLOUT);
  int sent = 0;
  socket.send([&](RelayReply const&) { ++sent; });
  CHECK(sent == 1);
  CHECK(socket.has_room());
  socket.take();
  CHECK_FALSE(socket.is_idle());
  socket.reply({.header = encode(SimpleReply{Errno::none, 2})});
  socket.send([](RelayReply const&) {});
  CHECK(socket.is_idle());
}

TEST_CASE("A paused socket is received from only to the end of what has begun", "[nbd][relay]") {
  auto [kernel, socket] = SocketAndKernel::make(4);
  CHECK_FALSE(socket.can_receive(true));
  auto const raw = encode(Request{0, static_cast<std::uint16_t>(Command::write), 1, 0, 10});
  REQUIRE(::send(kernel.get(), raw.data(), raw.size(), MSG_NOSIGNAL) == ssize_t(raw.size()));
  REQUIRE(socket.receive() == RelaySocket::Fill::some);
  CHECK(socket.next().value() == std::nullopt);
  CHECK(socket.can_receive(true));
}

TEST_CASE("A closed socket has nothing in flight and nothing to send", "[nbd][relay]") {
  auto [kernel, socket] = SocketAndKernel::make(2);
  SocketAndKernel{UniqueFd(::dup(kernel.get())), RelaySocket({}, 1)}.ask(1);
  REQUIRE(socket.receive() == RelaySocket::Fill::some);
  REQUIRE(socket.next().value());
  socket.take();
  socket.reply({.held = 512});
  std::uint32_t lost = 0;
  socket.close([&](RelayReply const& reply) { lost += reply.held; });
  CHECK(lost == 512);
  CHECK(socket.is_idle());
  CHECK_FALSE(socket.is_open());
  CHECK(socket.events(false) == 0);
}

}  // namespace relay_socket_test
}  // namespace erofs_oci::nbd
