// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/start_recorder.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/digest/sha256.hpp>

namespace erofs_oci {
namespace start_recorder_test {

using namespace std::chrono_literals;

TEST_CASE("What is needed after the minute is not recorded", "[image][start_recorder]") {
  ManualClock const clock;
  StartRecorder<ManualClock> recorder(60s, clock);
  auto const layer = digest_of(as_bytes("layer"));
  recorder.needed(layer, 100, 200);
  clock.sleep(59'999ms);
  recorder.needed(layer, 0, 50);
  clock.sleep(1ms);
  recorder.needed(layer, 500, 600);

  auto const list = recorder.list();

  REQUIRE(list.ranges().size() == 2);
  CHECK(list.ranges()[0] == StartRange{layer, 100, 200});
  CHECK(list.ranges()[1] == StartRange{layer, 0, 50});
}

TEST_CASE("Many threads record", "[image][start_recorder][threads]") {
  StartRecorder<ManualClock> recorder(60s, {});
  auto const layer = digest_of(as_bytes("layer"));
  {
    std::vector<std::jthread> threads;
    for (std::uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (std::uint64_t i = t; i < 400; i += 4) recorder.needed(layer, 10 * i, 10 * i + 10);
      });
    }
  }
  CHECK(recorder.list().bytes() == 4000);
}

TEST_CASE("What reads have got is noted for each layer, in order", "[image][start_recorder]") {
  ManualClock const clock;
  StartRecorder<ManualClock> recorder(60s, clock);
  auto const a = digest_of(as_bytes("a"));
  auto const b = digest_of(as_bytes("b"));
  recorder.read(a, 500, 600);
  recorder.read(b, 0, 10);
  recorder.read(a, 600, 700);  // goes on
  recorder.read(a, 100, 200);
  clock.sleep(60s);
  recorder.read(a, 0, 1);

  CHECK(recorder.reads(a) == std::vector<ByteRange>{{500, 700}, {100, 200}});
  CHECK(recorder.reads(b) == std::vector<ByteRange>{{0, 10}});
  CHECK(recorder.reads(digest_of(as_bytes("c"))).empty());
}

TEST_CASE("Of too many reads none is told", "[image][start_recorder]") {
  StartRecorder<ManualClock> recorder(60s, {});
  auto const layer = digest_of(as_bytes("layer"));
  for (std::uint64_t i = 0; i < 40'000; ++i) recorder.read(layer, 10 * i, 10 * i + 1);
  CHECK(recorder.reads(layer).empty());
}

}  // namespace start_recorder_test
}  // namespace erofs_oci
