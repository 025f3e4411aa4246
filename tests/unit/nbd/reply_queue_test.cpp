// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/reply_queue.hpp>  // first: proves that the header stands alone

#include <array>
#include <vector>

#include <catch.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci::nbd {
namespace reply_queue_test {

struct TwoPieces {
  Bytes head{};
  Bytes body{};
  [[nodiscard]] ReplyParts parts() const noexcept { return {head, body}; }
};

Bytes run_of(std::size_t length, std::size_t seed) {
  Bytes bytes(length);
  for (std::size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>(seed * 31 + i);
  return bytes;
}

TEST_CASE("Replies arrive whole and in order, whatever the socket takes", "[nbd][queue]") {
  rc::prop("sizes", [] {
    std::array<int, 2> fds{};
    RC_ASSERT(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) == 0);
    UniqueFd const ours(fds[0]);
    UniqueFd const theirs(fds[1]);
    int const small = 1;
    ::setsockopt(ours.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    ReplyQueue<TwoPieces> queue;
    Bytes wanted;
    Bytes got;
    std::size_t pushed = 0;
    std::size_t sent = 0;
    auto const receive = [&] {
      std::array<std::byte, 3000> room{};
      auto const n = ::recv(theirs.get(), room.data(), room.size(), MSG_DONTWAIT);
      if (n > 0) got.insert(got.end(), room.begin(), room.begin() + n);
    };
    auto const sizes =
        *rc::gen::container<std::vector<std::pair<std::size_t, std::size_t>>>(rc::gen::pair(
            rc::gen::inRange<std::size_t>(0, 20), rc::gen::inRange<std::size_t>(0, 9000)));
    for (auto const& [head, body] : sizes) {
      TwoPieces reply{run_of(head, pushed), run_of(body, pushed + 1)};
      wanted.insert(wanted.end(), reply.head.begin(), reply.head.end());
      wanted.insert(wanted.end(), reply.body.begin(), reply.body.end());
      queue.push(std::move(reply));
      ++pushed;
      RC_ASSERT(queue.send(ours.get(), [&](TwoPieces const&) { ++sent; }));
      RC_ASSERT(queue.size() == pushed - sent);
      if (body % 2 == 0) receive();
    }
    while (!queue.empty()) {
      receive();
      RC_ASSERT(queue.send(ours.get(), [&](TwoPieces const&) { ++sent; }));
    }
    while (got.size() < wanted.size()) receive();
    RC_ASSERT(got == wanted);
    RC_ASSERT(sent == pushed);
    RC_ASSERT(queue.sent() == wanted.size());
  });
}

TEST_CASE("A broken socket shows, and what is left can be dropped", "[nbd][queue][error]") {
  ReplyQueue<TwoPieces> queue;
  for (int i = 0; i < 3; ++i) queue.push({run_of(16, 1), {}});
  CHECK_FALSE(queue.send(-1, [](TwoPieces const&) { FAIL("sent"); }));
  int dropped = 0;
  queue.clear([&](TwoPieces const&) { ++dropped; });
  CHECK(dropped == 3);
  CHECK(queue.empty());
}

}  // namespace reply_queue_test
}  // namespace erofs_oci::nbd
