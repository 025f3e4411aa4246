// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/mount/mount_worker.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/mount/relayed_device.hpp>
#include <erofs_oci/source/memory.hpp>

#include "poll_once.hpp"

namespace erofs_oci {
namespace mount_worker_test {

using namespace std::chrono_literals;

TEST_CASE("What a worker tells of its image arrives", "[mount][worker][property]") {
  rc::prop("size, zeros, details and sample", [](std::uint64_t size, std::uint64_t zeros,
                                                 std::string const& details, std::uint64_t sample) {
    WorkerImage const image{size, zeros, to_bytes(as_bytes(details)), sample};
    auto const read = WorkerImage::from_message(image.to_message().value()).value();
    RC_ASSERT(read.size == size);
    RC_ASSERT(read.zeros_from == zeros);
    RC_ASSERT(read.details == image.details);
    RC_ASSERT(read.sample == sample);
  });
}

TEST_CASE("What is no image is refused", "[mount][worker][error]") {
  for (auto const* const text : {"", "1", "1 ", " 1", "1 2", "1 2 ", "1 2 3 4", "a 1 1", "1 -1 1",
                                 "1 1 -1", "99999999999999999999 1 1"}) {
    auto message = WorkerImage{}.to_message().value();
    message.text = text;
    INFO(text);
    CHECK(WorkerImage::from_message(message).error().code == Errc::protocol);
  }
  auto message = WorkerImage{1, 1, {}}.to_message().value();
  message.fds.clear();
  CHECK(WorkerImage::from_message(message).error().code == Errc::protocol);
}

/// A worker on a thread, and the supervisor's ends of what connects them.
struct Fixture {
  explicit Fixture(MountWorkerOptions options = {}) {
    auto channels = MountChannel::make().value();
    auto beats = Heartbeat::pair().value();
    channel.emplace(std::move(channels.first));
    heartbeat = std::move(beats.second);
    thread = std::jthread(
        [this, options = std::move(options),
         seat = WorkerSeat{std::move(channels.second), std::move(beats.first), true}]() mutable {
          MountWorker worker(std::move(seat));
          outcome = worker.serve({4096, 4096, {}}, AnySource(Memory(Bytes(4096, std::byte{3}))),
                                 std::move(options));
        });
  }

  MountMessage receive() const { return channel->receive_within(20s).value(); }

  std::optional<MountChannel> channel;
  UniqueFd heartbeat;
  std::optional<Result<bool>> outcome;
  std::jthread thread;
};

TEST_CASE("A worker serves what the supervisor gives it, until that ends", "[mount][worker]") {
  MountWorkerOptions options;
  unsigned before = 0;
  options.before_service = [&] { ++before; };
  Fixture f(std::move(options));
  CHECK(f.receive().kind == MountMessage::Kind::opened);
  auto device = RelayedDevice::beside(NetlinkConnect::to_device(0), {.size = 4096}).value();
  auto port = device.next_worker().value();
  MountMessage message{MountMessage::Kind::port, {}, {}, {}};
  message.fds.push_back(std::move(port.channel));
  message.fds.push_back(std::move(port.arena));
  REQUIRE(f.channel->send(message).has_value());
  std::optional<Result<void>> verified;
  device.verify_worker([&](Result<void> ok) { verified = std::move(ok); });
  while (!verified) {
    test::poll_once(device);
  }
  CHECK(verified->has_value());
  f.channel->close();
  f.thread.join();
  CHECK(f.outcome.value().value() == false);  // the supervisor ends the device
  CHECK(before == 1);
}

TEST_CASE("A worker that is given nothing to serve fails", "[mount][worker][error]") {
  Fixture f;
  CHECK(f.receive().kind == MountMessage::Kind::opened);
  SECTION("by silence") {
    f.channel->close();
  }
  SECTION("by another message") {
    f.channel->tell({MountMessage::Kind::settled, {}, {}, {}});
  }
  SECTION("by a port without descriptors") {
    f.channel->tell({MountMessage::Kind::port, {}, {}, {}});
  }
  f.thread.join();
  CHECK_FALSE(f.outcome.value().has_value());
}

}  // namespace mount_worker_test
}  // namespace erofs_oci
