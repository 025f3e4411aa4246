// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/demand_gate.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <chrono>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>

#include <catch.hpp>

namespace erofs_oci {
namespace demand_gate_test {

TEST_CASE("Who fetches ahead waits until the last read has what it fetches", "[gzip][gate]") {
  DemandGate gate;
  CHECK(gate.wait({}));
  std::optional first(gate.enter());
  std::optional second(gate.enter());
  auto moved = *std::move(second);
  second.reset();
  std::atomic<bool> left{false};

  std::jthread const reader([&] {
    first.reset();
    left = true;
    auto const last = std::move(moved);
  });

  CHECK(gate.wait({}));
  CHECK(left);
}

TEST_CASE("A stop ends the wait", "[gzip][gate]") {
  DemandGate gate;
  auto const read = gate.enter();
  std::stop_source stop;

  std::jthread const stopper([&] { stop.request_stop(); });

  CHECK_FALSE(gate.wait(stop.get_token()));
}

TEST_CASE("Who waits for a time only goes on while a read fetches", "[gzip][gate]") {
  using namespace std::chrono_literals;
  DemandGate gate;
  CHECK(gate.wait_for(1h, {}));
  auto read = std::optional(gate.enter());
  CHECK(gate.wait_for(1ms, {}));
  std::stop_source stop;
  {
    std::jthread const stopper([&] { stop.request_stop(); });
    CHECK_FALSE(gate.wait_for(1h, stop.get_token()));
  }
  std::jthread const reader([&] { read.reset(); });
  CHECK(gate.wait_for(1h, {}));
}

TEST_CASE("Nobody passes behind a stop, with or without reads", "[gzip][gate]") {
  DemandGate gate;
  std::stop_source stop;
  stop.request_stop();
  CHECK_FALSE(gate.wait(stop.get_token()));
}

}  // namespace demand_gate_test
}  // namespace erofs_oci
