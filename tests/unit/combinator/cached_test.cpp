// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/cached.hpp>  // first: proves that the header stands alone

#include <condition_variable>
#include <list>
#include <mutex>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/combinator/retry.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/source/zeros.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace cached_test {

using namespace std::chrono_literals;
using testing::Archetype;
using testing::Counting;
using testing::Flaky;
using testing::RequestLog;
using testing::Slow;
using testing::Tear;
using testing::Torn;
using Kind = RequestLog::Kind;
using Request = RequestLog::Request;

static_assert(RandomAccessSource<Cached<AnySource>>);
static_assert(RandomAccessSource<Cached<Cached<Archetype>>>);

/// A source whose streams hand over pieces of 100 bytes and stop at a gate until it is opened.
class Gated {
 public:
  struct Gate {
    std::mutex mutex;
    std::condition_variable moved;
    std::uint64_t open_to = 0;  // bytes before this offset may pass
    unsigned streams = 0;

    void open(std::uint64_t to) {
      {
        std::lock_guard const lock(mutex);
        open_to = to;
      }
      moved.notify_all();
    }
    void await_streams(unsigned n) {
      std::unique_lock lock(mutex);
      moved.wait(lock, [&] { return streams >= n; });
    }
  };

  Gated(Bytes bytes, Gate& gate) : bytes_(std::move(bytes)), gate_(&gate) {}

  [[nodiscard]] std::uint64_t size() const noexcept { return bytes_.size(); }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t, std::span<std::byte>) const {
    return fail(Errc::unsupported, "gated: read");
  }
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    std::unique_lock lock(gate_->mutex);
    ++gate_->streams;
    gate_->moved.notify_all();
    auto const end = std::min<std::uint64_t>(bytes_.size(), offset + length);
    while (offset < end) {
      gate_->moved.wait(lock, [&] { return gate_->open_to > offset; });
      auto const n = std::min<std::uint64_t>({100, end - offset, gate_->open_to - offset});
      lock.unlock();
      if (!sink(std::span(bytes_).subspan(offset, n))) return {};
      lock.lock();
      offset += n;
    }
    return {};
  }

 private:
  Bytes bytes_;
  Gate* gate_;
};

TEST_CASE("Cached reads as its source", "[combinator][cached][property]") {
  rc::prop("for all bytes, chunks and capacities", [] {
    auto const bytes = *testing::many_bytes(3000);
    auto const options = CacheOptions{.capacity = *rc::gen::inRange<std::uint64_t>(0, 2000),
                                      .chunk = *rc::gen::inRange<std::uint64_t>(1, 700)};

    testing::obeys_laws(AnySource(Cached(Archetype(bytes), options)), bytes);
  });
  rc::prop("for all bytes, with the options' defaults", [] {
    auto const bytes = *testing::many_bytes(200'000);

    testing::obeys_laws(AnySource(Cached(AnySource(Archetype(bytes)))), bytes);
  });
}

TEST_CASE("Cached reads as its source from many threads", "[combinator][cached][property]") {
  rc::prop("for all bytes, chunks and capacities", [] {
    auto const bytes = *testing::many_bytes(3000);
    auto const options = CacheOptions{.capacity = *rc::gen::inRange<std::uint64_t>(0, 2000),
                                      .chunk = *rc::gen::inRange<std::uint64_t>(16, 700)};

    testing::obeys_laws_concurrently(AnySource(Cached(Archetype(bytes), options)), bytes, 4);
  });
}

TEST_CASE("Cached that lets go of memory reads as its source", "[combinator][cached][property]") {
  rc::prop("for all bytes, chunks and capacities", [] {
    auto const bytes = *testing::many_bytes(3000);
    auto const options = CacheOptions{.capacity = *rc::gen::inRange<std::uint64_t>(0, 4000),
                                      .chunk = *rc::gen::inRange<std::uint64_t>(16, 700)};
    Shared<Cached<Archetype>> const cache(Cached<Archetype>(Archetype(bytes), options));

    testing::obeys_laws_while_shrinking(AnySource(cache), bytes,
                                        [&](std::uint64_t most) { cache.inner().shrink_to(most); });
  });
}

/// What an LRU cache does, in the dullest way.
struct Model {
  std::uint64_t size, chunk, capacity;
  std::list<std::uint64_t> held;  // the latest in front
  std::uint64_t bytes = 0;
  std::uint64_t misses = 0;

  [[nodiscard]] std::uint64_t bytes_in(std::uint64_t index) const {
    return std::min(chunk, size - index * chunk);
  }
  void read(std::uint64_t offset, std::uint64_t length) {
    if (offset >= size || length == 0) return;
    auto const last = (std::min(size, offset + length) - 1) / chunk;
    for (auto i = offset / chunk; i <= last; ++i) ask(i);
  }
  void ask(std::uint64_t index) {
    if (auto const place = std::ranges::find(held, index); place != held.end()) {
      held.splice(held.begin(), held, place);
      return;
    }
    ++misses;
    if (bytes_in(index) > capacity) return;
    while (bytes + bytes_in(index) > capacity) {
      bytes -= bytes_in(held.back());
      held.pop_back();
    }
    held.push_front(index);
    bytes += bytes_in(index);
  }
  void shrink_to(std::uint64_t most) {
    while (bytes > most) {
      bytes -= bytes_in(held.back());
      held.pop_back();
    }
  }
};

TEST_CASE("Cached holds what a map and a byte count say", "[combinator][cached][model]") {
  rc::prop("for all sequences of reads, some followed by a request to let go", [] {
    auto const bytes = *testing::many_bytes(2000);
    auto const chunk = *rc::gen::inRange<std::uint64_t>(1, 300);
    auto const capacity = *rc::gen::inRange<std::uint64_t>(0, 1500);
    Cached const source(Archetype(bytes), {.capacity = capacity, .chunk = chunk});
    Model model{bytes.size(), chunk, capacity, {}};

    for (auto step = 0; step < 30; ++step) {
      auto const offset = *rc::gen::inRange<std::uint64_t>(0, bytes.size() + 1);
      auto const length = *testing::any_length(bytes.size());
      Bytes out(length);
      RC_ASSERT(source.read_at(offset, out).has_value());
      model.read(offset, length);
      if (*rc::gen::inRange(0, 4) == 0) {
        auto const most = *rc::gen::inRange<std::uint64_t>(0, 1500);
        source.shrink_to(most);
        model.shrink_to(most);
      }

      auto const stats = source.stats();
      RC_ASSERT(stats.bytes == model.bytes);
      RC_ASSERT(stats.chunks == model.held.size());
      RC_ASSERT(stats.misses == model.misses);
      RC_ASSERT(stats.bytes <= capacity);
    }
  });
}

TEST_CASE("Cached fetches neighbouring missing chunks with one stream", "[combinator][cached]") {
  RequestLog log;
  Cached const source(Counting(Memory(testing::patterned_bytes(1000, 1)), log), {.chunk = 100});
  Bytes out(1000);

  SECTION("a read across several chunks is one stream of whole chunks") {
    REQUIRE(source.read_at(150, std::span(out).first(300)).value() == 300);
    CHECK(log.all() == std::vector<Request>{{Kind::stream, 100, 400}});
  }
  SECTION("a chunk that is there cuts the run in two") {
    REQUIRE(source.read_at(350, std::span(out).first(1)).has_value());
    log.clear();
    REQUIRE(source.read_at(0, out).value() == 1000);
    CHECK(log.all() == std::vector<Request>{{Kind::stream, 0, 300}, {Kind::stream, 400, 600}});
  }
  SECTION("a stream of everything is one stream, and fills the cache") {
    REQUIRE(source.stream(0, 5000, [](auto) { return true; }).has_value());
    REQUIRE(source.read_at(0, out).value() == 1000);
    CHECK(log.all() == std::vector<Request>{{Kind::stream, 0, 1000}});
  }
  SECTION("a stream that is stopped keeps the chunk in which it was") {
    REQUIRE(source.stream(50, 900, [](auto) { return false; }).has_value());
    CHECK(source.stats().bytes >= 100);
    REQUIRE(source.read_at(0, std::span(out).first(100)).value() == 100);
    CHECK(log.fetches() == 1);
  }
  SECTION("nothing is fetched for nothing") {
    REQUIRE(source.read_at(1000, out).value() == 0);
    REQUIRE(source.read_at(std::uint64_t(-1), out).value() == 0);
    REQUIRE(source.read_at(5, {}).value() == 0);
    CHECK(log.all().empty());
  }
}

TEST_CASE("Cached fetches a chunk once however many ask for it", "[combinator][cached]") {
  auto const bytes = testing::patterned_bytes(4000, 1);
  RequestLog log;
  Cached const source(Counting(Slow(Memory(bytes), 20ms), log), {.chunk = 1000});

  {
    std::vector<std::jthread> readers;
    for (std::uint64_t i = 0; i < 8; ++i) {
      readers.emplace_back([&, i] {
        Bytes out(500);
        auto const n = source.read_at(100 * (i % 4), out);
        if (!n || out != testing::slice_of(bytes, 100 * (i % 4), 500)) std::abort();
      });
    }
  }

  CHECK(log.all() == std::vector<Request>{{Kind::stream, 0, 1000}});
  CHECK(source.stats().misses == 1);
}

TEST_CASE("Cached fetches each chunk once when streams race", "[combinator][cached]") {
  auto const bytes = testing::patterned_bytes(100'000, 1);
  RequestLog log;
  Cached const source(Counting(Archetype(bytes), log), {.chunk = 1000});

  {
    std::vector<std::jthread> readers;
    for (auto i = 0; i < 4; ++i) {
      readers.emplace_back([&] {
        Bytes got;
        auto const ok = source.stream(0, bytes.size(), [&](std::span<std::byte const> piece) {
          got.insert(got.end(), piece.begin(), piece.end());
          return true;
        });
        if (!ok || got != bytes) std::abort();
      });
    }
  }

  CHECK(source.stats().misses == 100);
  CHECK(log.count(Kind::read) == 0);
}

TEST_CASE("Cached serves readers from a chunk that is still growing", "[combinator][cached]") {
  Gated::Gate gate;
  auto const bytes = testing::patterned_bytes(1000, 1);
  Cached const source(Gated(bytes, gate), {.chunk = 1000});
  Bytes all(1000);
  std::jthread leader([&] {
    if (!source.read_at(0, all)) std::abort();
  });
  gate.await_streams(1);
  gate.open(300);
  Bytes out(50);

  REQUIRE(source.read_at(200, out).value() == 50);  // the stream hangs at 300 all this time
  CHECK(out == testing::slice_of(bytes, 200, 50));
  CHECK(source.stats().chunks == 0);

  gate.open(1000);
  leader.join();
  CHECK(all == bytes);
  CHECK(source.stats().chunks == 1);
  CHECK(gate.streams == 1);
}

TEST_CASE("Cached holds no lock while it reads below", "[combinator][cached]") {
  Gated::Gate gate;
  Cached const source(Gated(testing::patterned_bytes(2000, 1), gate), {.chunk = 1000});
  std::jthread first([&] {
    Bytes out(1);
    if (!source.read_at(999, out)) std::abort();
  });
  gate.await_streams(1);

  std::jthread second([&] {
    Bytes out(1);
    if (!source.read_at(1500, out)) std::abort();
  });
  gate.await_streams(2);  // hangs for ever if the second chunk waits for the first one
  CHECK(source.stats().misses == 2);

  gate.open(2000);
}

TEST_CASE("Cached lets no reader wait for ever", "[combinator][cached][error]") {
  Gated::Gate gate;
  Cached const source(Gated(Bytes(1000), gate), {.chunk = 1000, .wait = 20ms});
  std::jthread leader([&] {
    Bytes out(1);
    if (!source.read_at(0, out)) std::abort();
  });
  gate.await_streams(1);
  Bytes out(1);

  auto const n = source.read_at(500, out);

  gate.open(1000);
  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::timed_out);
}

/// Gives a byte every 5 ms, or, as Verified does, only asks whether to go on.
struct Drip {
  [[nodiscard]] std::uint64_t size() const noexcept { return 1'000'000; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t, std::span<std::byte>) const {
    return fail(Errc::unsupported, "only streams");
  }
  [[nodiscard]] Result<void> stream(std::uint64_t, std::uint64_t length, ByteSink sink) const {
    std::byte const one{};
    for (std::uint64_t i = 0; i < length; ++i) {
      std::this_thread::sleep_for(5ms);
      if (!sink(std::span(&one, asks ? 0 : 1))) return {};
    }
    return {};
  }
  bool asks = false;
};

TEST_CASE("Cached gives up a fetch whose bytes come too slowly", "[combinator][cached][error]") {
  auto const asks = GENERATE(false, true);
  Cached const source(Retry(Drip{asks}), {.chunk = 100'000, .wait = 50ms});
  Bytes out(1);
  auto const start = std::chrono::steady_clock::now();

  auto const n = source.read_at(90'000, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::timed_out);
  CHECK(std::chrono::steady_clock::now() - start < 20s);
  CHECK(source.stats().bytes == 0);
}

TEST_CASE("Cached takes no time of its sink for that of its source", "[combinator][cached]") {
  Cached const source(Memory(Bytes(1000)), {.chunk = 500, .wait = 20ms});
  std::size_t got = 0;

  auto const done = source.stream(0, 1000, [&](std::span<std::byte const> piece) {
    std::this_thread::sleep_for(50ms);
    got += piece.size();
    return true;
  });

  CHECK(done.has_value());
  CHECK(got == 1000);
}

TEST_CASE("Cached does not keep an error", "[combinator][cached][error]") {
  RequestLog log;
  auto const bytes = testing::patterned_bytes(1000, 1);
  Cached const source(Counting(Flaky(Memory(bytes), {.count = 2, .bytes_first = 250}), log),
                      {.chunk = 100});
  Bytes out(1000);

  auto const n = source.read_at(0, out);
  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::unavailable);
  CHECK(source.stats().bytes == 200);  // whole chunks that came before the error are good

  CHECK_FALSE(source.read_at(0, out).has_value());
  REQUIRE(source.read_at(0, out).value() == 1000);
  CHECK(out == bytes);
  CHECK(log.all() == std::vector<Request>{{Kind::stream, 0, 1000},
                                          {Kind::stream, 200, 800},
                                          {Kind::stream, 400, 600}});
}

TEST_CASE("Cached gives an error to everyone who waits for the chunk",
          "[combinator][cached][error]") {
  RequestLog log;
  Cached const source(
      Counting(Flaky(Slow(Memory(Bytes(1000)), 50ms),
                     {.bytes_first = 10, .error = {make_error_code(Errc::corrupt), "own", {}}}),
               log),
      {.chunk = 1000});
  std::atomic<int> failed{0};
  std::atomic<int> read{0};
  {
    std::vector<std::jthread> readers;
    for (auto i = 0; i < 4; ++i) {
      readers.emplace_back([&] {
        Bytes out(100);
        auto const n = source.read_at(500, out);
        ++(n ? read : failed);
        if (!n && n.error().context != "own") std::abort();
      });
    }
  }

  // A reader that comes after the error fetches anew; all before it share it.
  CHECK(failed >= 1);
  CHECK(failed + read == 4);
  CHECK(log.fetches() == (read > 0 ? 2 : 1));
}

TEST_CASE("Cached takes a source that ends early for an error", "[combinator][cached][error]") {
  Cached const source(Torn(Memory(Bytes(1000)), Tear::stream_shifts), {.chunk = 100});
  Bytes out(1000);

  auto const n = source.read_at(900, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::truncated);
  CHECK(source.stats().bytes == 0);
}

TEST_CASE("Cached leaves no claim behind when a sink throws", "[combinator][cached][error]") {
  Gated::Gate gate;
  gate.open(1000);
  auto const bytes = testing::patterned_bytes(1000, 1);
  Cached const source(Gated(bytes, gate), {.chunk = 1000, .wait = 20ms});
  auto const thrower = [](std::span<std::byte const>) -> bool { throw std::bad_alloc(); };

  CHECK_THROWS_AS(static_cast<void>(source.stream(0, 1000, thrower)), std::bad_alloc);

  Bytes out(1000);
  CHECK(source.read_at(0, out).value() == 1000);
  CHECK(out == bytes);
}

TEST_CASE("Cached fetches no more than the chunk in which a sink stops it",
          "[combinator][cached]") {
  Gated::Gate gate;
  gate.open(400);
  Cached const source(Gated(testing::patterned_bytes(1000, 1), gate), {.chunk = 200});

  // Hangs for ever if it asks for more than 400 bytes.
  REQUIRE(source.stream(250, 700, [](auto) { return false; }).has_value());

  CHECK(source.stats().bytes == 200);
}

TEST_CASE("Cached stops its stream at a chunk that someone else fetches", "[combinator][cached]") {
  Gated::Gate gate;
  auto const bytes = testing::patterned_bytes(400, 1);
  Cached const source(Gated(bytes, gate), {.chunk = 200});
  Bytes all(400);
  std::jthread leader([&] {
    if (!source.read_at(0, all)) std::abort();
  });
  gate.await_streams(1);  // for both chunks, but it has not come to the second one
  Bytes late(200);
  std::jthread other([&] {
    if (!source.read_at(200, late)) std::abort();
  });
  gate.await_streams(2);

  gate.open(400);
  leader.join();
  other.join();

  CHECK(all == bytes);
  CHECK(late == testing::slice_of(bytes, 200, 200));
  CHECK(source.stats().misses == 2);
  CHECK(gate.streams == 2);
}

TEST_CASE("Cached withstands readers, errors and evictions at once", "[combinator][cached]") {
  auto const bytes = testing::patterned_bytes(20'000, 1);
  Cached const source(Flaky(Archetype(bytes), {.first = 20, .count = 50, .bytes_first = 333}),
                      {.capacity = 3000, .chunk = 256});
  std::atomic<int> wrong{0};
  {
    std::vector<std::jthread> readers;
    for (unsigned i = 0; i < 4; ++i) {
      readers.emplace_back([&, i] {
        std::mt19937_64 random(i);
        for (auto round = 0; round < 200; ++round) {
          auto const offset = random() % bytes.size();
          Bytes out(random() % 2000);
          auto const n = source.read_at(offset, out);
          auto const expected = testing::slice_of(bytes, offset, out.size());
          if (n &&
              (*n != expected.size() || !std::equal(expected.begin(), expected.end(), out.begin())))
            ++wrong;
        }
      });
    }
  }

  CHECK(wrong == 0);
  CHECK(source.stats().bytes <= 3000);
}

}  // namespace cached_test
}  // namespace erofs_oci
