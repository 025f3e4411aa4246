// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/engine_channels.hpp>  // first: proves that the header stands alone

#include <string>

#include <catch.hpp>
#include <erofs_oci/posix/shared_memory.hpp>

namespace erofs_oci::nbd {
namespace engine_channels_test {

TEST_CASE("Messages go to and come from engines by their numbers", "[nbd][engine]") {
  auto const arena = SharedMemory::make(4096);
  REQUIRE(arena);
  EngineChannels channels;
  auto const [first, one] = channels.add(arena->fd()).value();
  auto const [second, two] = channels.add(arena->fd()).value();
  CHECK(first != second);
  CHECK(one.arena.get() != arena->fd());
  EngineRequest const request{42, 0, 0, 512};
  CHECK(channels.send(second, {&request, 1}));
  EngineRequest received;
  CHECK(::recv(one.channel.get(), &received, sizeof received, MSG_DONTWAIT) < 0);
  CHECK(::recv(two.channel.get(), &received, sizeof received, MSG_DONTWAIT) == sizeof received);
  CHECK(received.id == 42);

  auto const hear = [&](bool believed) {
    std::vector<pollfd> fds;
    channels.watch(fds, 0);
    CHECK(fds.size() == 2);
    ::poll(fds.data(), fds.size(), 0);
    std::string heard;
    channels.receive(
        fds,
        [&](EngineId id, EngineAnswer const& answer) {
          heard += std::to_string(id) + ":" + std::to_string(answer.id);
          return believed;
        },
        [&](std::string_view why) { heard += why; });
    return heard;
  };
  EngineAnswer const answer{42, 0};
  ::send(two.channel.get(), &answer, sizeof answer, MSG_NOSIGNAL);
  CHECK(hear(true) == "2:42");
  ::send(two.channel.get(), &answer, sizeof answer, MSG_NOSIGNAL);
  CHECK(hear(false) == "2:42an answer without a request");
  CHECK_FALSE(channels.send(second, {&request, 1}));  // it is heard no more
  CHECK(channels.has(second));
  channels.remove(second);
  CHECK_FALSE(channels.has(second));
  CHECK(channels.send(first, {&request, 1}));
  channels.close();
  CHECK_FALSE(channels.send(first, {&request, 1}));
}

TEST_CASE("A channel that is full takes nothing", "[nbd][engine]") {
  auto const arena = SharedMemory::make(4096);
  REQUIRE(arena);
  EngineChannels channels;
  auto const [id, port] = channels.add(arena->fd()).value();
  std::array<EngineRequest, most_in_packet> const many{};
  std::size_t sent = 0;
  while (sent < 10'000 && channels.send(id, many)) ++sent;
  CHECK(sent < 10'000);
  std::vector<pollfd> fds;
  channels.watch(fds, id);
  CHECK(fds[0].events == (POLLIN | POLLOUT));
  CHECK(::poll(fds.data(), 1, 0) == 0);
}

}  // namespace engine_channels_test
}  // namespace erofs_oci::nbd
