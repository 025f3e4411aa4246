// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/outbox.hpp>  // first: proves that the header stands alone

#include <thread>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/testing/generators.hpp>

#include "raw_client.hpp"

namespace erofs_oci::nbd::testing {
namespace outbox_test {

using erofs_oci::testing::patterned_bytes;

/// An outbox on one end of a socketpair with a small buffer.
struct Box {
  std::pair<UniqueFd, UniqueFd> sockets = socket_pair();
  RawClient client{std::move(sockets.first)};
  BufferPool buffers{};
  Window window{1000, 100'000'000};
  Wakeup wakeup = *Wakeup::open();
  Outbox outbox{sockets.second.get(), buffers, window, wakeup};

  Box() {
    int const size = 4096;
    ::setsockopt(sockets.second.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  }

  void send(Bytes const& head, Bytes const& body) {
    Reply reply;
    reply.append(head);
    reply.body = buffers.take(body.size());
    std::ranges::copy(body, reply.body.first(body.size()).data());
    reply.body_size = body.size();
    reply.charge = body.size();
    REQUIRE(window.enter(body.size()));
    outbox.send(std::move(reply));
  }

  [[nodiscard]] bool awake() const {
    pollfd entry{wakeup.fd(), POLLIN, 0};
    return ::poll(&entry, 1, 0) == 1;
  }
};

TEST_CASE("Outbox sends what fits at once and wakes no thread", "[nbd][outbox]") {
  Box box;

  box.send(to_bytes("head"), to_bytes("body"));

  CHECK(box.client.receive(8) == to_bytes("headbody"));
  CHECK_FALSE(box.awake());
  CHECK_FALSE(box.outbox.stalled_since().has_value());
  CHECK(box.window.empty());
}

TEST_CASE("Outbox keeps what does not fit, whole and in order", "[nbd][outbox]") {
  Box box;
  Bytes wanted;
  for (std::uint64_t i = 0; i < 60; ++i) {
    auto const head = patterned_bytes(1 + i, i);
    auto const body = patterned_bytes(static_cast<std::size_t>(i * 977 % 9000), i + 100);
    wanted.insert(wanted.end(), head.begin(), head.end());
    wanted.insert(wanted.end(), body.begin(), body.end());
    box.send(head, body);
  }
  CHECK(box.awake());
  CHECK(box.outbox.stalled_since().has_value());
  CHECK_FALSE(box.window.empty());

  std::jthread const flusher([&box] {
    while (box.outbox.stalled_since() && !box.outbox.broken()) {
      pollfd entry{box.sockets.second.get(), POLLOUT, 0};
      ::poll(&entry, 1, 1000);
      box.outbox.flush();
    }
  });

  CHECK((box.client.receive(wanted.size()) == wanted));
  CHECK(box.client.silent());
}

TEST_CASE("Outbox drops everything once the peer is gone", "[nbd][outbox][error]") {
  Box box;
  for (int i = 0; i < 10; ++i) box.send(to_bytes("head"), Bytes(10'000));
  CHECK_FALSE(box.window.empty());

  box.client.close();
  box.outbox.flush();

  CHECK(box.outbox.broken());
  CHECK(box.window.empty());
  box.send(to_bytes("late"), Bytes(10));
  CHECK(box.window.empty());
}

TEST_CASE("A reply that leaves wakes the thread that waits for room, once", "[nbd][outbox]") {
  Box box;
  box.send(to_bytes("head"), {});
  CHECK_FALSE(box.awake());

  box.outbox.wait_for_room();
  box.send(to_bytes("head"), {});
  CHECK(box.awake());
  box.wakeup.clear();
  box.send(to_bytes("head"), {});

  CHECK_FALSE(box.awake());
}

TEST_CASE("Window bounds requests and bytes, but never one alone", "[nbd][outbox]") {
  Window window(3, 100);
  CHECK(window.enter(1000));
  CHECK_FALSE(window.enter(1));
  CHECK(window.enter(0) == false);
  window.leave(1000);
  CHECK(window.empty());

  CHECK(window.enter(60));
  CHECK_FALSE(window.enter(41));
  CHECK(window.enter(40));
  CHECK(window.enter(0));
  CHECK_FALSE(window.enter(0));
  CHECK_FALSE(window.empty());
}

}  // namespace outbox_test
}  // namespace erofs_oci::nbd::testing
