// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/instrumented.hpp>  // first: proves that the header stands alone

#include <numeric>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace instrumented_test {

using namespace std::chrono_literals;
using testing::Archetype;
using testing::Flaky;
using testing::Slow;

/// Keeps the records.
struct Kept {
  std::vector<RequestRecord>* records;
  void operator()(RequestRecord const& record) const { records->push_back(record); }
};

static_assert(RandomAccessSource<Instrumented<AnySource, RecordTo>>);

TEST_CASE("Instrumented reads as its source", "[combinator][instrumented][property]") {
  rc::prop("for all bytes", [] {
    auto const bytes = *testing::any_bytes();
    Metrics metrics;

    testing::obeys_laws(AnySource(Instrumented(Archetype(bytes), RecordTo(metrics))), bytes);

    RC_ASSERT(metrics.counts().reads > 0u);
    RC_ASSERT(metrics.counts().errors == 0u);
  });
}

TEST_CASE("Instrumented counts reads, streams, bytes and errors", "[combinator][instrumented]") {
  Metrics metrics;
  Instrumented const source(Flaky(Memory(Bytes(100)), {.first = 2}), RecordTo(metrics));
  Bytes out(30);

  REQUIRE(source.read_at(90, out).value() == 10);
  REQUIRE(source.stream(0, 1000, [](auto) { return true; }).has_value());
  REQUIRE_FALSE(source.read_at(0, out).has_value());
  REQUIRE(source.stream(0, 100, [](auto) { return false; }).has_value());

  auto const counts = metrics.counts();
  CHECK(counts.reads == 2);
  CHECK(counts.streams == 2);
  CHECK(counts.errors == 1);
  CHECK(counts.bytes == 10 + 100 + 100);
  CHECK(std::accumulate(counts.latency.begin(), counts.latency.end(), std::uint64_t{0}) == 4);
}

TEST_CASE("Instrumented counts a stream in pieces as one request", "[combinator][instrumented]") {
  Metrics metrics;
  Instrumented const source(Memory(Bytes(300'000)), RecordTo(metrics));

  REQUIRE(source.stream(0, 300'000, [](auto) { return true; }).has_value());

  CHECK(metrics.counts().streams == 1);
  CHECK(metrics.counts().bytes == 300'000);
}

TEST_CASE("Instrumented measures the time of each request", "[combinator][instrumented]") {
  ManualClock const clock;
  std::vector<RequestRecord> records;
  Instrumented const source(Slow(Memory(Bytes(8)), 20ms, clock), Kept{&records}, clock);
  Bytes out(4);

  REQUIRE(source.read_at(6, out).has_value());

  REQUIRE(records.size() == 1);
  CHECK(records[0].took == 20ms);
  CHECK(records[0].offset == 6);
  CHECK(records[0].wanted == 4);
  CHECK(records[0].bytes == 2);
}

TEST_CASE("Metrics sorts latencies by powers of two microseconds", "[combinator][instrumented]") {
  CHECK(Metrics::bucket_of(0us) == 0);
  CHECK(Metrics::bucket_of(1us) == 1);
  CHECK(Metrics::bucket_of(2us) == 2);
  CHECK(Metrics::bucket_of(3us) == 2);
  CHECK(Metrics::bucket_of(4us) == 3);
  CHECK(Metrics::bucket_of(-1us) == 0);
  CHECK(Metrics::bucket_of(1000h) == Metrics::buckets - 1);
}

}  // namespace instrumented_test
}  // namespace erofs_oci
