// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/hand_over.hpp>  // first: proves that the header stands alone

#include <tuple>
#include <vector>

#include <catch.hpp>
#include <erofs_oci/posix/shared_memory.hpp>

namespace erofs_oci::nbd {
namespace hand_over_test {

std::vector<EngineRequest> handed_to(UniqueFd const& channel) {
  std::vector<EngineRequest> requests;
  Packet<EngineRequest> packet;
  for (;;) {
    auto const n = ::recv(channel.get(), packet.room().data(), packet.room().size(), MSG_DONTWAIT);
    if (n <= 0) return requests;
    for (std::size_t i = 0; i < packet.count(std::size_t(n)); ++i) requests.push_back(packet[i]);
  }
}

/// A relay's tables with one engine and no read.
struct OneEngine {
  OneEngine() {
    auto const arena = SharedMemory::make(4096);
    REQUIRE(arena);
    std::tie(id, port) = engines.add(arena->fd()).value();
  }

  EngineChannels engines;
  EngineId id = 0;
  RelayPort port;
  ReadTable reads;
};

TEST_CASE("The line goes to one engine, in packets", "[nbd][engine]") {
  OneEngine one;
  auto& [engines, id, port, reads] = one;
  for (std::uint32_t i = 0; i < 150; ++i) reads.add({.socket = 0, .offset = i, .length = 1});
  CHECK(hand_over(reads, Suspects(1, 1), engines, id + 1));  // no such engine
  CHECK(reads.line().size() == 150);
  CHECK(hand_over(reads, Suspects(1, 1), engines, id));
  CHECK(reads.line().empty());
  CHECK(reads.count_of(id) == 150);
  auto const requests = handed_to(port.channel);
  REQUIRE(requests.size() == 150);
  for (std::uint32_t i = 0; i < 150; ++i) CHECK(requests[i].offset == i);
}

TEST_CASE("A channel without room leaves the rest in the line", "[nbd][engine]") {
  OneEngine one;
  auto& [engines, id, port, reads] = one;
  for (int i = 0; i < 100'000; ++i) reads.add({.socket = 0, .length = 1});
  REQUIRE_FALSE(hand_over(reads, Suspects(1, 1), engines, id));
  auto const left = reads.line().size();
  CHECK(left > 0);
  CHECK(left < 100'000);
  CHECK(handed_to(port.channel).size() == 100'000 - left);
}

}  // namespace hand_over_test
}  // namespace erofs_oci::nbd
