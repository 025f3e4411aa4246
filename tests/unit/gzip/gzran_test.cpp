// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/gzran.hpp>  // first: proves that the header stands alone

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace gzran_test {

static_assert(RandomAccessSource<Gzran<Memory>>);
static_assert(RandomAccessSource<Gzran<Memory, ZlibInflater>>);

// Text that compresses, with long-distance matches.
Bytes compressible(std::size_t size, unsigned seed) {
  Bytes bytes(size);
  std::uint32_t x = seed * 2654435761U + 1;
  for (std::size_t i = 0; i < size; ++i) {
    x = x * 1664525U + 1013904223U;
    bool const repeat = i > 20000 && (x >> 28) < 12;
    bytes[i] = repeat ? bytes[i - 19997] : std::byte(x >> 24 & 0x3f);
  }
  return bytes;
}

// A remote source that lets the test decide how many bytes have come; counts requests.
class Gate {
 public:
  explicit Gate(Bytes bytes) : shared_(std::make_shared<Shared>(std::move(bytes))) {}

  [[nodiscard]] std::uint64_t size() const noexcept { return shared_->bytes.size(); }
  [[nodiscard]] bool is_remote() const { return true; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    ++shared_->reads;
    return Memory(shared_->bytes).read_at(offset, out);
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    ++shared_->streams;
    Active const active(*shared_);
    auto const end = std::min<std::uint64_t>(offset + length, size());
    for (auto at = offset; at < end; at += 1000) {
      std::unique_lock lock(shared_->mutex);
      shared_->moved.wait(lock, [&] { return at < shared_->open_to || shared_->fail; });
      if (at >= shared_->open_to) return fail(Errc::unavailable, "gate");
      lock.unlock();
      auto const n = static_cast<std::size_t>(std::min<std::uint64_t>(1000, end - at));
      if (!sink(std::span(shared_->bytes).subspan(static_cast<std::size_t>(at), n))) return {};
    }
    return {};
  }

  void open_to(std::uint64_t offset) const {
    std::lock_guard const lock(shared_->mutex);
    shared_->open_to = offset;
    shared_->moved.notify_all();
  }
  // Streams fail where they would wait.
  void fail_now(bool fail) const {
    std::lock_guard const lock(shared_->mutex);
    shared_->fail = fail;
    shared_->moved.notify_all();
  }
  // Waits for the end of the streams that have begun.
  void wait_until_idle() const {
    std::unique_lock lock(shared_->mutex);
    shared_->moved.wait(lock, [&] { return shared_->active == 0; });
  }
  [[nodiscard]] int streams() const { return shared_->streams; }
  [[nodiscard]] int reads() const { return shared_->reads; }

 private:
  struct Shared {
    explicit Shared(Bytes b) : bytes(std::move(b)) {}
    Bytes const bytes;
    std::mutex mutex;
    std::condition_variable moved;
    std::uint64_t open_to = 0;
    bool fail = false;
    int active = 0;
    std::atomic<int> streams{0};
    std::atomic<int> reads{0};
  };
  struct Active {
    explicit Active(Shared& s) : shared(s) {
      std::lock_guard const lock(shared.mutex);
      ++shared.active;
    }
    Active(Active const&) = delete;
    Active& operator=(Active const&) = delete;
    ~Active() {
      std::lock_guard const lock(shared.mutex);
      --shared.active;
      shared.moved.notify_all();
    }
    Shared& shared;
  };
  std::shared_ptr<Shared> shared_;
};
static_assert(RandomAccessSource<Gate>);

constexpr auto everything = std::uint64_t(-1);

// Opens the gate when it goes, so that no background fetch is left waiting.
struct OpenAtEnd {
  Gate gate;
  ~OpenAtEnd() { gate.open_to(everything); }
};

Gzran<Gate> open_sized(Gate const& gate, testing::GzipBlob const& made) {
  GzranOptions options;
  options.size = made.content.size();
  return Gzran<Gate>::make(gate, made.index(), options).value();
}

testing::MemberRecipe any_member() {
  auto const seed = *rc::gen::inRange(0U, 1000U);
  auto const size = *rc::gen::element<std::size_t>(0, 1, 100, 5000, 40000, 90000);
  testing::MemberRecipe recipe{compressible(size, seed)};
  recipe.level = *rc::gen::inRange(0, 10);
  recipe.strategy = *rc::gen::element(Z_DEFAULT_STRATEGY, Z_HUFFMAN_ONLY, Z_RLE, Z_FIXED);
  recipe.flush_every = *rc::gen::element<std::size_t>(0, 700, 9000, 50000);
  recipe.name = *rc::gen::element<std::string>("", "layer.tar");
  recipe.extra = Bytes(*rc::gen::element<std::size_t>(0, 6, 300));
  recipe.header_crc = *rc::gen::arbitrary<bool>();
  return recipe;
}

testing::GzipBlob any_blob() {
  std::vector<testing::MemberRecipe> members;
  auto const count = *rc::gen::inRange(1, 5);
  for (int i = 0; i < count; ++i) members.push_back(any_member());
  auto const trailing =
      *rc::gen::element<Bytes>(Bytes{}, Bytes(512), to_bytes("junk"), Bytes{std::byte{0x1f}});
  auto const span = *rc::gen::element<std::uint64_t>(0, 1, 1000, 30000, 100000, everything / 2);
  return testing::gzip_blob(members, trailing).spaced(span);
}

template <class I>
void check_against_zlib() {
  auto const made = any_blob();
  GzranOptions options;
  options.cache_bytes = *rc::gen::element<std::uint64_t>(1 << 20, 64 << 20);
  options.read_ahead = *rc::gen::inRange(0U, 3U);

  auto gzran = Gzran<Memory, I>::make(Memory(made.blob), made.index(), options);

  if (!gzran) RC_FAIL(gzran.error().message());
  RC_ASSERT(gzran->size() == made.content.size());
  testing::obeys_laws(AnySource(*std::move(gzran)), made.content);
}

TEST_CASE("Gzran reads what zlib decodes", "[gzip][gzran][property]") {
  rc::prop("for all members, span sizes and trailing data, with zlib",
           [] { check_against_zlib<ZlibInflater>(); });
  rc::prop("for all members, span sizes and trailing data, with the default inflater",
           [] { check_against_zlib<DefaultInflater>(); });
}

TEST_CASE("Gzran asks no more of its source than the concept", "[gzip][gzran][property]") {
  rc::prop("for all blobs over an archetype", [] {
    auto const made = any_blob();
    auto gzran = Gzran<testing::Archetype>::make(testing::Archetype(made.blob), made.index());
    RC_ASSERT(gzran.has_value());
    testing::obeys_laws(AnySource(*std::move(gzran)), made.content);
  });
}

testing::GzipBlob const& two_members() {
  static auto const made = testing::gzip_blob({{compressible(120000, 1), 6, 0, 5000},
                                               {compressible(40000, 2), 1, 0, 3000}})
                               .spaced(10000);
  return made;
}

template <class Source>
void check_many_threads() {
  auto const& made = two_members();
  GzranOptions options;
  options.cache_bytes = *rc::gen::element<std::uint64_t>(1 << 20, 64 << 20);
  options.read_ahead = *rc::gen::inRange(0U, 3U);
  auto source = Source(made.blob);
  if constexpr (std::same_as<Source, Gate>) source.open_to(everything);
  auto gzran = Gzran<Source>::make(std::move(source), made.index(), options);
  RC_ASSERT(gzran.has_value());
  testing::obeys_laws_concurrently(AnySource(*std::move(gzran)), made.content, 4);
}

TEST_CASE("Gzran serves many threads", "[gzip][gzran][threads][property]") {
  rc::prop("over memory", [] { check_many_threads<Memory>(); });
  rc::prop("over a remote source", [] { check_many_threads<Gate>(); });
}

TEST_CASE("A read near a span's start does not wait for its end", "[gzip][gzran]") {
  auto const made =
      testing::gzip_blob({{compressible(600000, 3), 6, 0, 10000}}).spaced(everything / 2);
  REQUIRE(made.checkpoints.size() == 1);
  Gate const gate(made.blob);
  OpenAtEnd const guard{gate};
  GzranOptions options;
  options.size = made.content.size();
  options.deadline = std::chrono::milliseconds(300);
  auto const gzran = Gzran<Gate>::make(gate, made.index(), options);
  REQUIRE(gzran.has_value());
  Bytes out(4096);

  gate.open_to(made.blob.size() / 10);
  auto const near = gzran->read_at(0, out);
  REQUIRE(near.has_value());
  CHECK(std::ranges::equal(out, std::span(made.content).first(4096)));

  auto const far = gzran->read_at(500000, out);
  REQUIRE_FALSE(far.has_value());
  CHECK(far.error().code == Errc::timed_out);

  gate.open_to(everything);
  gate.wait_until_idle();  // nobody waits any more for what was asked for
  CHECK(gzran->stats().fetched_bytes < made.blob.size() / 10 + 3000);
  auto const later = gzran->read_at(500000, out);
  REQUIRE(later.has_value());
  CHECK(std::ranges::equal(out, std::span(made.content).subspan(500000, 4096)));
  gate.wait_until_idle();  // the fetch goes on to the end of the span
  CHECK(gate.streams() == 2);
  CHECK(gate.reads() == 0);
  CHECK(gzran->stats().fetched_bytes == made.blob.size() - made.checkpoints[0].in);
}

TEST_CASE("A fetch goes on as long as one of its readers waits", "[gzip][gzran]") {
  auto const made =
      testing::gzip_blob({{compressible(600000, 3), 6, 0, 10000}}).spaced(everything / 2);
  Gate const gate(made.blob);
  OpenAtEnd const guard{gate};
  GzranOptions options;
  options.size = made.content.size();
  options.pool = std::make_shared<GzranPool>(64 << 20, 1);
  auto const patient = Gzran<Gate>::make(gate, made.index(), options).value();
  Bytes out(4096);
  std::optional<Result<std::size_t>> got;
  gate.open_to(made.blob.size() / 10);
  {
    std::jthread const reader([&] { got = patient.read_at(500000, out); });
    while (gate.streams() == 0) std::this_thread::yield();
    gate.open_to(everything);
  }
  REQUIRE(got->has_value());
  CHECK(std::ranges::equal(out, std::span(made.content).subspan(500000, 4096)));
  CHECK(gate.streams() == 1);
}

TEST_CASE("What is fetched ahead gives way to a read that has no thread", "[gzip][gzran]") {
  auto const made = testing::gzip_blob({{compressible(2000000, 4), 6, 0, 10000}}).spaced(250000);
  Gate const gate(made.blob);
  OpenAtEnd const guard{gate};
  GzranOptions options;
  options.size = made.content.size();
  options.fetch.first = made.blob.size() / 2;
  options.pool = std::make_shared<GzranPool>(64 << 20, 1);  // one thread
  auto const gzran = Gzran<Gate>::make(gate, made.index(), options).value();
  Bytes near(4096);
  Bytes far(4096);
  auto const at = made.content.size() - 10000;
  std::optional<Result<std::size_t>> got;

  gate.open_to(50000);
  REQUIRE(gzran.read_at(0, near).has_value());
  {
    std::jthread const reader([&] { got = gzran.read_at(at, far); });
    while (!options.pool->lacks_thread()) std::this_thread::yield();
    CHECK(gate.streams() == 1);
    gate.open_to(everything);
  }
  gate.wait_until_idle();

  REQUIRE(got->has_value());
  CHECK(std::ranges::equal(far, std::span(made.content).subspan(at, far.size())));
  CHECK(gate.streams() == 2);
  while (!options.pool->has_free_thread()) std::this_thread::yield();
  CHECK_FALSE(options.pool->lacks_thread());
  CHECK(gzran.stats().fetched_bytes < made.blob.size() / 2);

  auto const middle = made.content.size() / 4;  // what gave way can be asked for again
  REQUIRE(gzran.read_at(middle, near).has_value());
  CHECK(std::ranges::equal(near, std::span(made.content).subspan(middle, near.size())));
}

TEST_CASE("More is fetched at once by a link on which requests wait for long", "[gzip][gzran]") {
  auto const made = testing::gzip_blob({{compressible(2000000, 4), 0, 0, 10000}}).spaced(250000);
  GzranOptions options;
  options.size = made.content.size();
  options.granule = 4096;
  options.fetch = {.first = 50'000, .most = 1'000'000};
  auto const fetched_by_a_read = [&](std::chrono::milliseconds wait) {
    Gate const gate(made.blob);
    gate.open_to(everything);
    options.pool = std::make_shared<GzranPool>(64 << 20);
    for (int i = 0; i < 3; ++i) {
      options.pool->link().note(wait, 250'000, std::chrono::milliseconds(2));
    }
    auto const gzran = Gzran<Gate>::make(gate, made.index(), options).value();
    Bytes out(1);
    REQUIRE(gzran.read_at(0, out).has_value());
    gate.wait_until_idle();
    CHECK(gzran.stats().fetches == 1);
    return gzran.stats().fetched_bytes;
  };

  // A granule and a piece of the gate more or less.
  auto const near = [](std::uint64_t bytes) { return Approx(bytes).margin(6000); };
  CHECK(fetched_by_a_read(std::chrono::milliseconds(0)) == near(50'000));
  CHECK(fetched_by_a_read(std::chrono::milliseconds(1)) == near(50'000));
  CHECK(fetched_by_a_read(std::chrono::milliseconds(5)) == near(125 * 5 * 1000 / 4));
  CHECK(fetched_by_a_read(std::chrono::milliseconds(20)) == near(250'000));
}

TEST_CASE("Each span is fetched once, however many readers ask", "[gzip][gzran][threads]") {
  auto const made = testing::gzip_blob({{compressible(2000000, 4), 6, 0, 10000}}).spaced(250000);
  Gate const gate(made.blob);
  gate.open_to(everything);
  GzranOptions options;
  options.size = made.content.size();
  auto const gzran = Gzran<Gate>::make(gate, made.index(), options);
  REQUIRE(gzran.has_value());

  {
    std::vector<std::jthread> readers;
    for (std::size_t t = 0; t < 4; ++t) {
      readers.emplace_back([&, t] {
        Bytes out(10000);
        for (std::size_t i = 0; i < 200; ++i) {
          auto const at = (i * 7 + t * 50) % 200 * 10000;
          auto const n = gzran->read_at(at, out);
          if (!n || !std::ranges::equal(std::span(out).first(*n),
                                        std::span(made.content).subspan(at, *n)))
            std::abort();
        }
      });
    }
  }
  CHECK(gate.streams() <= static_cast<int>(made.checkpoints.size()));
  // A byte in which a checkpoint begins may come twice, if two ranges meet there.
  auto const all = made.blob.size() - made.checkpoints.front().first_byte();
  CHECK(gzran->stats().fetched_bytes >= all);
  CHECK(gzran->stats().fetched_bytes <= all + made.checkpoints.size());
}

TEST_CASE("A failed span is an error for its readers, and is tried anew later",
          "[gzip][gzran][error]") {
  auto const made = testing::gzip_blob({{compressible(600000, 5), 6, 0, 10000}}).spaced(100000);
  Gate const gate(made.blob);
  OpenAtEnd const guard{gate};
  GzranOptions options;
  options.size = made.content.size();
  auto const gzran = Gzran<Gate>::make(gate, made.index(), options);
  REQUIRE(gzran.has_value());
  Bytes out(1000);

  gate.fail_now(true);
  auto const bad = gzran->read_at(300000, out);
  REQUIRE_FALSE(bad.has_value());
  CHECK(bad.error().code == Errc::unavailable);
  CHECK_THAT(bad.error().message(), Catch::Contains("gzip span"));

  gate.fail_now(false);
  gate.open_to(everything);
  auto const good = gzran->read_at(300000, out);
  REQUIRE(good.has_value());
  CHECK(std::ranges::equal(out, std::span(made.content).subspan(300000, 1000)));
}

TEST_CASE("Memory stays bounded, even with one span far larger than the cache", "[gzip][gzran]") {
  auto const made = testing::gzip_blob({{Bytes(12 << 20), 9}}).spaced(everything / 2);
  GzranOptions options;
  options.cache_bytes = 2 << 20;
  auto const gzran = Gzran<Memory>::make(Memory(made.blob), made.index(), options);
  REQUIRE(gzran.has_value());
  REQUIRE(gzran->size() == made.content.size());
  Bytes out(1 << 20, std::byte{1});

  for (auto const at : {0, 9 << 20, 1 << 20, 11 << 20, 5 << 20}) {
    auto const n = gzran->read_at(static_cast<std::uint64_t>(at), out);
    REQUIRE(n.has_value());
    REQUIRE(*n == out.size());
    CHECK(std::ranges::all_of(out, [](std::byte b) { return b == std::byte{0}; }));
    CHECK(gzran->stats().memory <= 6U << 20);
    std::ranges::fill(out, std::byte{1});
  }
}

TEST_CASE("With however little memory, a run through a span decodes it once", "[gzip][gzran]") {
  auto const content = compressible(7 << 20, 12);
  auto const made = testing::gzip_blob({{content, 6}}).spaced(everything / 2);
  GzranOptions options;
  options.cache_bytes = 1 << 20;
  options.size = content.size();
  auto const length = GENERATE(std::size_t{4096}, std::size_t{1000000}, std::size_t{3} << 20);
  auto const gzran = Gzran<Memory>::make(Memory(made.blob), made.index(), options).value();
  Bytes out(length);

  for (std::size_t at = 0; at < content.size();) {
    auto const n = gzran.read_at(at, out).value();
    REQUIRE(n == std::min(length, content.size() - at));
    CHECK(std::ranges::equal(std::span(out).first(n), std::span(content).subspan(at, n)));
    at += n;
  }

  CHECK(gzran.stats().spans_entered == 1);
}

TEST_CASE("A read ends at its deadline, however much there is to decode", "[gzip][gzran][error]") {
  auto const made = testing::gzip_blob({{compressible(2'000'000, 3), 6}});
  auto const window = made.index().window;
  auto const first = made.checkpoints.front();
  auto const content = made.content.size();
  GzipSpan<DefaultInflater> span({0, first, made.blob.size(), content}, window,
                                 std::make_shared<GzranPool>(16 << 20), 16 << 20);
  REQUIRE(span.begin_fetch());
  (void)span.push(std::span(made.blob).subspan(first.in), made.blob.size());
  span.end_fetch({});
  std::array<std::byte, 1> out{};
  std::size_t n = 0;
  auto const now = std::chrono::steady_clock::now();

  auto const late = span.read(content - 1, out, n, now);

  REQUIRE_FALSE(late);
  CHECK(late.error().code == Errc::timed_out);
  CHECK(span.decoded() > 0);
  CHECK(span.decoded() < content);
  auto const in_time = span.read(content - 1, out, n, now + std::chrono::minutes(10));
  REQUIRE(in_time);
  CHECK(out[0] == made.content.back());
}

TEST_CASE("Gzrans that share a pool share its bound", "[gzip][gzran]") {
  auto const made = testing::gzip_blob({{compressible(3 << 20, 10), 6, 0, 20000}}).spaced(400000);
  GzranOptions options;
  options.pool = std::make_shared<GzranPool>(2 << 20, 2);
  std::vector<Gzran<Memory>> layers;
  for (int i = 0; i < 4; ++i) {
    auto gzran = Gzran<Memory>::make(Memory(made.blob), made.index(), options);
    REQUIRE(gzran.has_value());
    layers.push_back(*std::move(gzran));
  }

  Bytes out(100000);
  for (std::size_t i = 0; i < 60; ++i) {
    auto const at = i * 777777 % (made.content.size() - out.size());
    REQUIRE(layers[i % 4].read_at(at, out).value() == out.size());
    CHECK(std::ranges::equal(out, std::span(made.content).subspan(at, out.size())));
    CHECK(options.pool->used() <= 4U << 20);
  }
  layers.clear();
  CHECK(options.pool->used() == 0);
}

TEST_CASE("A pool lets go of decoded bytes, decoders and chunks for reuse", "[gzip][gzran]") {
  auto const made = testing::gzip_blob({{compressible(3 << 20, 10), 6, 0, 20000}}).spaced(400000);
  GzranOptions options;
  options.size = made.content.size();
  options.read_ahead = 0;  // nothing in the background
  options.pool = std::make_shared<GzranPool>(16 << 20, 2);
  auto const gzran = Gzran<Memory>::make(Memory(made.blob), made.index(), options).value();
  auto& pool = *options.pool;
  Bytes out(1000);
  for (std::size_t at = 0; at + out.size() < made.content.size(); at += 300000) {
    REQUIRE(gzran.read_at(at, out).value() == out.size());
  }
  auto const full = pool.held();
  CHECK(full >= made.checkpoints.size() * gzip_chunk_size);
  CHECK(full > pool.used());  // decoders

  pool.shrink_to(full);
  CHECK(pool.held() == full);
  pool.shrink_to(1 << 20);
  CHECK(pool.held() <= 1U << 20);
  CHECK(pool.used() > 0);
  pool.shrink_to(0);
  CHECK(pool.held() == 0);
  CHECK(pool.used() == 0);

  REQUIRE(gzran.read_at(1'000'000, out).value() == out.size());
  CHECK(std::ranges::equal(out, std::span(made.content).subspan(1'000'000, out.size())));
}

TEST_CASE("Chunks for reuse and compressed bytes keep within the bound together", "[gzip][gzran]") {
  auto const pool = std::make_shared<GzranPool>(8 * gzip_chunk_size);
  std::vector<std::shared_ptr<std::byte>> chunks;
  for (int i = 0; i < 8; ++i) chunks.push_back(GzranPool::take(pool));
  chunks.clear();
  CHECK(pool->held() == 8 * gzip_chunk_size);

  pool->add(3 * gzip_chunk_size);  // compressed bytes
  pool->shrink();

  CHECK(pool->held() == 8 * gzip_chunk_size);
  pool->subtract(3 * gzip_chunk_size);
}

template <class Source>
void check_while_shrinking() {
  auto const& made = two_members();
  GzranOptions options;
  options.pool = std::make_shared<GzranPool>(64 << 20, 4);
  options.read_ahead = *rc::gen::inRange(0U, 3U);
  auto source = Source(made.blob);
  if constexpr (std::same_as<Source, Gate>) source.open_to(everything);
  auto gzran = Gzran<Source>::make(std::move(source), made.index(), options);
  RC_ASSERT(gzran.has_value());
  testing::obeys_laws_while_shrinking(
      AnySource(*std::move(gzran)), made.content,
      [&](std::uint64_t most) { options.pool->shrink_to(most); }, 4);
}

TEST_CASE("Gzran reads right bytes while it lets go of memory",
          "[gzip][gzran][threads][property]") {
  rc::prop("over memory", [] { check_while_shrinking<Memory>(); });
  rc::prop("over a remote source", [] { check_while_shrinking<Gate>(); });
}

TEST_CASE("An index and a blob that do not belong together are never bytes",
          "[gzip][gzran][error]") {
  auto const made = testing::gzip_blob({{compressible(400000, 6), 6, 0, 10000}}).spaced(50000);
  REQUIRE(made.checkpoints.size() > 4);
  auto const read_all = [](Bytes const& blob, GzipIndex index) -> Result<Bytes> {
    auto const gzran = Gzran<Memory>::make(Memory(blob), std::move(index));
    if (!gzran) return fail(gzran.error());
    Bytes out(static_cast<std::size_t>(gzran->size()));
    auto const n = gzran->read_at(0, out);
    if (!n) return fail(n.error());
    return out;
  };
  REQUIRE(read_all(made.blob, made.index()).value() == made.content);

  SECTION("a checkpoint at the wrong decoded offset") {
    auto const by = GENERATE(-1, 1);
    auto index = made.index();
    index.checkpoints[2].out += static_cast<std::uint64_t>(by);
    auto const got = read_all(made.blob, index);
    REQUIRE_FALSE(got.has_value());
    CHECK(got.error().code == Errc::mismatch);
    CHECK_THAT(got.error().message(), Catch::Contains("gzip span"));
  }
  SECTION("a blob that ends early") {
    auto const cut = GENERATE(1U, 9U, 5000U);
    auto short_blob = made.blob;
    short_blob.resize(short_blob.size() - cut);
    auto const got = read_all(short_blob, made.index());
    REQUIRE_FALSE(got.has_value());
    CHECK(got.error().code == Errc::truncated);
  }
  SECTION("a checkpoint behind the blob's end") {
    auto index = made.index();
    index.checkpoints.back().in = made.blob.size() + 1;
    CHECK(read_all(made.blob, index).error().code == Errc::mismatch);
  }
  SECTION("fewer decoded bytes than were promised") {
    GzranOptions options;
    options.size = made.content.size() + 1;
    auto const gzran = Gzran<Memory>::make(Memory(made.blob), made.index(), options);
    REQUIRE(gzran.has_value());
    Bytes out(2);
    auto const got = gzran->read_at(made.content.size() - 1, out);
    REQUIRE_FALSE(got.has_value());
    CHECK(got.error().code == Errc::mismatch);
  }
  SECTION("another blob") {
    auto const other = testing::gzip_blob({{compressible(400000, 7), 6, 0, 10000}});
    CHECK_FALSE(read_all(other.blob, made.index()).has_value());
  }
}

TEST_CASE("A version 1 index finds the first block behind any gzip header", "[gzip][gzran]") {
  auto const extra = GENERATE(Bytes{}, Bytes(300, std::byte{7}));
  testing::MemberRecipe recipe{compressible(100000, 8), 6, 0, 10000, "a name", extra, true};
  auto const made = testing::gzip_blob({recipe}).spaced(20000);
  auto index = made.index();
  index.checkpoints[0] = {10, 0, 0};
  index.first_is_assumed = true;

  auto const gzran = Gzran<Memory>::make(Memory(made.blob), index);

  REQUIRE(gzran.has_value());
  CHECK(gzran->index().checkpoints[0] == made.checkpoints[0]);
  Bytes out(made.content.size());
  REQUIRE(gzran->read_at(0, out).value() == out.size());
  CHECK(out == made.content);

  auto const not_gzip = Gzran<Memory>::make(Memory(Bytes(100000)), index);
  REQUIRE_FALSE(not_gzip.has_value());
  CHECK(not_gzip.error().code == Errc::mismatch);
}

// Incompressible, so that the blob is as long.
Bytes random_bytes(std::size_t size) {
  Bytes bytes(size);
  std::uint64_t x = 88172645463325252U;
  for (auto& byte : bytes) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    byte = std::byte(x >> 32 & 0xff);
  }
  return bytes;
}

// A blob of random bytes behind a gate, whose decoded size is known.
struct Gated {
  Gated(std::size_t size, std::uint64_t span)
      : made(testing::gzip_blob({{random_bytes(size), 6, 0, 20000}}).spaced(span)) {}

  static GzranOptions known(std::uint64_t size) {
    GzranOptions options;
    options.size = size;
    return options;
  }

  testing::GzipBlob made;
  Gate gate{made.blob};
  Gzran<Gate> gzran = Gzran<Gate>::make(gate, made.index(), known(made.content.size())).value();
  OpenAtEnd at_end{gate};  // last, so that it lets go what `gzran` waits for
};

TEST_CASE("A read fetches what it needs and a little more, in one range", "[gzip][gzran]") {
  Gated const gated(6 << 20, 500'000);
  auto const& [made, gate, gzran, at_end] = gated;
  gate.open_to(everything);
  Bytes out(128 * 1024);
  auto const needed = std::uint64_t{530'000} + out.size();

  SECTION("anywhere") {
    for (std::uint64_t const at : {4'000'000U, 2'000'000U, 1U}) {
      auto const before = gzran.stats();
      auto const streams = gate.streams();
      REQUIRE(gzran.read_at(at, out).value() == out.size());
      gate.wait_until_idle();
      CHECK(gate.streams() == streams + 1);
      CHECK(gzran.stats().fetched_bytes - before.fetched_bytes <= needed + 512 * 1024);
    }
  }
  SECTION("over as many spans as it crosses") {
    out.resize(3 << 20);
    REQUIRE(gzran.read_at(1'000'000, out).value() == out.size());
    CHECK(gate.streams() == 1);
    CHECK(std::ranges::equal(out, std::span(made.content).subspan(1'000'000, out.size())));
  }
  SECTION("and the next read takes up what came with it") {
    REQUIRE(gzran.read_at(0, out).value() == out.size());
    gate.wait_until_idle();
    auto const came = gzran.stats().fetched_bytes;
    REQUIRE(came > out.size() + 400'000);
    for (std::uint64_t at = 0; at < 400'000; at += out.size()) {
      REQUIRE(gzran.read_at(at, out).value() == out.size());
    }
    CHECK(gate.streams() == 1);
    CHECK(gzran.stats().fetched_bytes == came);
  }
}

TEST_CASE("A reader that goes on has larger and larger ranges fetched", "[gzip][gzran]") {
  Gated const gated(24 << 20, 500'000);
  auto const& [made, gate, gzran, at_end] = gated;
  gate.open_to(everything);
  Bytes out(128 * 1024);

  for (std::size_t at = 0; at < made.content.size(); at += out.size()) {
    auto const n = gzran.read_at(at, out).value();
    REQUIRE(std::ranges::equal(std::span(out).first(n), std::span(made.content).subspan(at, n)));
  }

  CHECK(gate.streams() <= 8);
  auto const all = made.blob.size() - made.checkpoints.front().first_byte();
  CHECK(gzran.stats().fetched_bytes <= all + made.checkpoints.size());
}

TEST_CASE("An error in what is fetched ahead is none of the read", "[gzip][gzran][error]") {
  Gated const gated(2 << 20, 300'000);
  auto const& [made, gate, gzran, at_end] = gated;
  Bytes out(1000);

  gate.open_to(made.checkpoints[1].in + 2000);
  CHECK(gzran.read_at(0, out).value() == out.size());
  gate.fail_now(true);
  CHECK(gzran.read_at(made.checkpoints[1].out - out.size(), out).value() == out.size());

  gate.fail_now(false);
  gate.open_to(everything);
  CHECK(gzran.read_at(made.checkpoints[2].out, out).value() == out.size());
  CHECK(std::ranges::equal(out,
                           std::span(made.content).subspan(made.checkpoints[2].out, out.size())));
}

TEST_CASE("The read that finds a span longer than the index says fails itself",
          "[gzip][gzran][error]") {
  auto const made = testing::gzip_blob({{compressible(400000, 6), 6, 0, 10000}}).spaced(50000);
  auto index = made.index();
  index.checkpoints[2].out -= 1;
  auto const begin = index.checkpoints[1].out;
  Bytes out(static_cast<std::size_t>(index.checkpoints[2].out - begin));
  auto const gzran = Gzran<Memory>::make(Memory(made.blob), std::move(index));
  REQUIRE(gzran.has_value());

  auto const got = gzran->read_at(begin, out);

  REQUIRE_FALSE(got.has_value());
  CHECK(got.error().code == Errc::mismatch);
}

using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

// Reads of 4 KiB at `places`; aborts the test on wrong bytes.
void read_places(Gzran<Gate> const& gzran, Bytes const& content,
                 std::vector<std::uint64_t> const& places) {
  Bytes out(4096);
  for (auto const at : places) {
    auto const n = gzran.read_at(at, out);
    RC_ASSERT(n.has_value());
    auto const right = std::span(content).subspan(static_cast<std::size_t>(at), *n);
    RC_ASSERT(std::ranges::equal(std::span(out).first(*n), right));
  }
}

TEST_CASE("What reads needed, fetched ahead, is all that the same reads need",
          "[gzip][gzran][ahead][property]") {
  static auto const made =
      testing::gzip_blob({{compressible(1500000, 21), 6, 0, 10000}}).spaced(150000);
  rc::prop("for all reads and granules", [] {
    auto const places = *rc::gen::container<std::vector<std::uint64_t>>(
        *rc::gen::inRange<std::size_t>(1, 9), rc::gen::inRange<std::uint64_t>(0, 1499000));
    GzranOptions options;
    options.size = made.content.size();
    options.granule = *rc::gen::element<std::uint64_t>(0, 1024, 8 * 1024);
    Gate const first(made.blob);
    first.open_to(everything);
    std::mutex mutex;
    Ranges needed;
    options.on_need = [&](std::uint64_t begin, std::uint64_t end) {
      std::lock_guard const lock(mutex);
      needed.emplace_back(begin, end);
    };
    {
      auto const gzran = Gzran<Gate>::make(first, made.index(), options);
      RC_ASSERT(gzran.has_value());
      read_places(*gzran, made.content, places);
    }
    std::vector<std::uint64_t> ends(made.checkpoints.size());  // the last word on each span
    for (auto const& [begin, end] : needed) {
      for (std::size_t i = 0; i < ends.size(); ++i) {
        if (made.checkpoints[i].first_byte() != begin) continue;
        RC_ASSERT(ends[i] < end);
        ends[i] = end;
      }
    }

    Gate const second(made.blob);
    second.open_to(everything);
    options.on_need = {};
    auto const gzran = Gzran<Gate>::make(second, made.index(), options);
    RC_ASSERT(gzran.has_value());
    for (std::size_t i = 0; i < ends.size(); ++i) {
      auto const begin = made.checkpoints[i].first_byte();
      if (ends[i] != 0) RC_ASSERT(gzran->fetch(begin, ends[i], {}) == ends[i] - begin);
    }
    auto const streams = second.streams();
    read_places(*gzran, made.content, places);

    RC_ASSERT(second.streams() == streams);
  });
}

TEST_CASE("Fetching ahead takes spans side by side by one request, and none twice",
          "[gzip][gzran][ahead]") {
  auto const made = testing::gzip_blob({{compressible(1500000, 22), 6, 0, 10000}}).spaced(150000);
  REQUIRE(made.checkpoints.size() > 6);
  Gate const gate(made.blob);
  gate.open_to(everything);
  auto const gzran = open_sized(gate, made);
  auto const begin = [&](std::size_t span) { return made.checkpoints[span].first_byte(); };
  CHECK(gzran.next_span(begin(2)) == begin(2));
  CHECK(gzran.next_span(begin(2) + 1) == begin(3));
  CHECK(gzran.next_span(made.blob.size()) == made.blob.size());

  // The byte in which a checkpoint begins is no reason to fetch the span behind it.
  CHECK(gzran.fetch(begin(2), made.checkpoints[3].in, {}) == made.checkpoints[3].in - begin(2));
  CHECK(gate.streams() == 1);
  CHECK(gzran.fetch(begin(1), begin(5), {}).has_value());
  CHECK(gate.streams() == 3);  // before and behind what is there
  CHECK(gzran.fetch(begin(1), begin(5), {}) == 0U);
  CHECK(gzran.fetch(made.blob.size(), everything, {}) == 0U);
  CHECK(gate.streams() == 3);
}

TEST_CASE("Fetching ahead begins nothing while a read fetches", "[gzip][gzran][ahead]") {
  auto const made = testing::gzip_blob({{compressible(1500000, 23), 6, 0, 10000}}).spaced(150000);
  Gate const gate(made.blob);
  OpenAtEnd const guard{gate};
  auto const gzran = open_sized(gate, made);
  auto const last = made.checkpoints.back().first_byte();
  gate.open_to(20000);
  Bytes out(4096);
  REQUIRE(gzran.read_at(0, out).has_value());  // whose request goes on
  std::stop_source stop;

  Result<std::uint64_t> came = 0;
  {
    std::jthread const ahead([&] { came = gzran.fetch(last, made.blob.size(), stop.get_token()); });
    stop.request_stop();
  }

  REQUIRE_FALSE(came.has_value());
  CHECK(came.error().code == Errc::stopping);
  CHECK(gate.streams() == 1);
  gate.open_to(everything);
  CHECK(gzran.fetch(last, made.blob.size(), {}) == made.blob.size() - last);
}

TEST_CASE("Beside a fetch ahead, a read takes little more than it needs", "[gzip][gzran][ahead]") {
  auto const made = testing::gzip_blob({{compressible(1500000, 24), 6, 0, 10000}}).spaced(150000);
  Gate const gate(made.blob);
  OpenAtEnd const guard{gate};
  auto const gzran = open_sized(gate, made);
  auto const last = made.checkpoints.back().first_byte();
  REQUIRE(last > 500'000);
  gate.open_to(200'000);
  {
    std::jthread const ahead([&] { CHECK(gzran.fetch(last, made.blob.size(), {}).has_value()); });
    while (gate.streams() == 0) std::this_thread::yield();
    Bytes out(4096);
    CHECK(gzran.read_at(0, out).has_value());
    gate.open_to(everything);
  }
  gate.wait_until_idle();

  CHECK(gzran.stats().fetched_bytes <= made.blob.size() - last + 3 * GzranOptions().granule);
}

TEST_CASE("A failure of fetching ahead is no error for a read", "[gzip][gzran][ahead][error]") {
  auto const made = testing::gzip_blob({{compressible(1500000, 24), 6, 0, 10000}}).spaced(150000);
  Gate const gate(made.blob);
  OpenAtEnd const guard{gate};
  auto const gzran = open_sized(gate, made);
  gate.open_to(made.checkpoints[1].first_byte() + 2000);
  gate.fail_now(true);

  auto const came = gzran.fetch(0, made.blob.size(), {});

  REQUIRE_FALSE(came.has_value());
  CHECK(came.error().code == Errc::unavailable);
  gate.fail_now(false);
  gate.open_to(everything);
  Bytes out(4096);
  for (std::uint64_t const at : {0U, 200000U, 1000000U}) {
    auto const n = gzran.read_at(at, out);
    REQUIRE(n.has_value());
    CHECK(std::ranges::equal(out, std::span(made.content).subspan(at, 4096)));
  }
}

}  // namespace gzran_test
}  // namespace erofs_oci
