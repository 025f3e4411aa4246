// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/engine.hpp>  // first: proves that the header stands alone

#include <latch>
#include <optional>
#include <thread>

#include <sys/socket.h>
#include <unistd.h>

#include <catch.hpp>

#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/posix/shared_memory.hpp>

namespace erofs_oci {
namespace engine_test {

/// Reads that end, in an error, when they are told to.
struct Stuck {
  std::latch* begun;
  std::latch* ends;

  [[nodiscard]] std::uint64_t size() const noexcept { return 4096; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t, std::span<std::byte>) const {
    begun->count_down();
    ends->wait();
    return fail(Errc::stopping, "stuck");
  }
};

TEST_CASE("An engine that ends leaves reads that fail then to the next one", "[nbd][engine]") {
  auto ends = socket_pair(SOCK_SEQPACKET).value();
  auto arena = SharedMemory::make(4096).value();
  std::latch begun(1);
  std::latch over(1);
  auto errors = 0;
  std::optional<NbdEngine<Stuck>> engine(
      NbdEngine<Stuck>::open(Stuck{&begun, &over},
                             {std::move(ends.first), UniqueFd(::dup(arena.fd()))},
                             {.workers = 1,
                              .on_read_error = [&](auto, auto, auto const&) { ++errors; },
                              .on_end = [&] { over.count_down(); }})
          .value());
  nbd::EngineRequest const request{.id = 7, .length = 512};
  REQUIRE(::send(ends.second.get(), &request, sizeof request, 0) == sizeof request);
  auto const by_stop = GENERATE(true, false);
  std::stop_source stop;
  std::jthread const ender([&] {
    begun.wait();
    if (by_stop) stop.request_stop();
    if (!by_stop) ::shutdown(ends.second.get(), SHUT_WR);
  });

  CHECK(engine->run(stop.get_token()).has_value());
  engine.reset();

  nbd::EngineAnswer answer;
  CHECK(::recv(ends.second.get(), &answer, sizeof answer, 0) == 0);  // the end, and no answer
  CHECK(errors == 0);
}

TEST_CASE("A request outside of the arena is refused", "[nbd][engine][error]") {
  struct Unread {
    [[nodiscard]] std::uint64_t size() const noexcept { return 4096; }
    [[nodiscard]] Result<std::size_t> read_at(std::uint64_t, std::span<std::byte>) const {
      return fail(Errc::unavailable, "read");
    }
  };
  auto const [length, place] =
      GENERATE(table<std::uint32_t, std::uint64_t>({{512, 3585}, {1, 4096}, {4097, 0}}));
  auto ends = socket_pair(SOCK_SEQPACKET).value();
  auto arena = SharedMemory::make(4096).value();
  auto engine = NbdEngine<Unread>::open(
                    Unread{}, {std::move(ends.first), UniqueFd(::dup(arena.fd()))}, {.workers = 1})
                    .value();
  nbd::EngineRequest request{.id = 7, .length = length};
  request.place = place;
  REQUIRE(::send(ends.second.get(), &request, sizeof request, 0) == sizeof request);
  ::shutdown(ends.second.get(), SHUT_WR);

  auto const ended = engine.run(std::stop_token());

  REQUIRE_FALSE(ended.has_value());
  CHECK(ended.error().code == Errc::protocol);
}

}  // namespace engine_test
}  // namespace erofs_oci
