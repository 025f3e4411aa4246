// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/mount/relayed_device.hpp>  // first: proves that the header stands alone

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stop_token>
#include <thread>

#include <catch.hpp>
#include <erofs_oci/nbd/engine.hpp>
#include <erofs_oci/source/memory.hpp>

#include "poll_once.hpp"

namespace erofs_oci {
namespace relayed_device_test {

constexpr std::size_t device_size = 8192;

/// Bytes of which all from some place on cannot be read.
class Poisoned {
 public:
  Poisoned(std::byte fill, std::uint64_t from) : bytes_(Bytes(device_size, fill)), from_(from) {}

  [[nodiscard]] std::uint64_t size() const noexcept { return bytes_.size(); }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    if (offset + out.size() > from_) return fail(Errc::digest_mismatch, "poisoned");
    return bytes_.read_at(offset, out);
  }

 private:
  Memory bytes_;
  std::uint64_t from_;
};

/// A device of another process, so that none of the kernel's is needed.
RelayedDevice relayed_device(std::uint64_t sample = RelayedDevice::most_sample) {
  auto connect = NetlinkConnect::to_device(0);
  auto device = RelayedDevice::beside(std::move(connect), {.size = device_size}, sample);
  REQUIRE(device);
  return *std::move(device);
}

/// What is found out of a worker whose image is full of one byte.
/// @param poisoned  from there on it cannot be read
std::error_code verify_with(RelayedDevice& device, std::byte fill,
                            std::uint64_t poisoned = device_size) {
  auto port = device.next_worker();
  REQUIRE(port);
  auto engine =
      NbdEngine<Poisoned>::open(Poisoned(fill, poisoned), *std::move(port), {.workers = 1});
  REQUIRE(engine);
  std::jthread const thread(
      [&](std::stop_token stop) { static_cast<void>(engine->run(std::move(stop))); });
  std::optional<Result<void>> outcome;
  device.verify_worker([&](Result<void> ok) { outcome = std::move(ok); });
  while (!outcome) {
    test::poll_once(device);
  }
  device.drop_worker(EngineEnd::killed);
  return *outcome ? std::error_code() : outcome->error().code;
}

TEST_CASE("A worker must read what the first one read", "[mount][device]") {
  auto device = relayed_device();
  CHECK_FALSE(verify_with(device, std::byte{1}));
  CHECK(verify_with(device, std::byte{2}) == Errc::mismatch);
  CHECK_FALSE(verify_with(device, std::byte{1}));
}

TEST_CASE("A device that is attached again is compared with what was read before",
          "[mount][device]") {
  auto before = relayed_device();
  CHECK(before.sample() == std::nullopt);
  CHECK_FALSE(verify_with(before, std::byte{1}));
  auto after = relayed_device();
  after.expect(before.sample());
  CHECK(verify_with(after, std::byte{2}) == Errc::mismatch);
  CHECK_FALSE(verify_with(after, std::byte{1}));
}

TEST_CASE("A worker is not at fault if the image cannot be read", "[mount][device]") {
  auto device = relayed_device();
  CHECK_FALSE(verify_with(device, std::byte{1}));
  CHECK_FALSE(verify_with(device, std::byte{1}, 4096));
  CHECK(verify_with(device, std::byte{2}) == Errc::mismatch);

  // Nor if that was so from the first one on.
  auto other = relayed_device();
  CHECK_FALSE(verify_with(other, std::byte{1}, 0));
  CHECK(other.sample() == std::nullopt);
  CHECK_FALSE(verify_with(other, std::byte{1}));
  CHECK(other.sample() != std::nullopt);
}

TEST_CASE("Workers are compared by the sample alone", "[mount][device]") {
  auto device = relayed_device(512);
  CHECK_FALSE(verify_with(device, std::byte{1}));
  CHECK(verify_with(device, std::byte{2}, 512) == Errc::mismatch);
  CHECK_FALSE(verify_with(device, std::byte{1}, 512));
}

TEST_CASE("A worker that does not answer is not used", "[mount][device][error]") {
  auto device = relayed_device();
  REQUIRE(device.next_worker());  // its end of the channel is closed
  std::optional<Result<void>> outcome;
  device.verify_worker([&](Result<void> ok) { outcome = std::move(ok); });
  while (!outcome) test::poll_once(device);
  REQUIRE_FALSE(*outcome);
  CHECK(outcome->error().code == Errc::unavailable);
}

}  // namespace relayed_device_test
}  // namespace erofs_oci
