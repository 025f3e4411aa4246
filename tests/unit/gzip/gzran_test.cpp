// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/gzran.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace {

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
    auto const end = std::min<std::uint64_t>(offset + length, size());
    for (auto at = offset; at < end; at += 1000) {
      std::unique_lock lock(shared_->mutex);
      shared_->moved.wait(lock, [&] { return at < shared_->open_to || shared_->fail; });
      if (shared_->fail) return fail(Errc::unavailable, "gate");
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
  void fail_now(bool fail) const {
    std::lock_guard const lock(shared_->mutex);
    shared_->fail = fail;
    shared_->moved.notify_all();
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
    std::atomic<int> streams{0};
    std::atomic<int> reads{0};
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

template <class Source>
void check_many_threads() {
  auto const made = testing::gzip_blob({{compressible(120000, 1), 6, 0, 5000},
                                        {compressible(40000, 2), 1, 0, 3000}})
                        .spaced(10000);
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
  auto const later = gzran->read_at(500000, out);
  REQUIRE(later.has_value());
  CHECK(std::ranges::equal(out, std::span(made.content).subspan(500000, 4096)));
  CHECK(gate.streams() == 1);
  CHECK(gate.reads() == 0);
  CHECK(gzran->stats().fetched_bytes == made.blob.size() - made.checkpoints[0].in);
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
  CHECK(gate.streams() == static_cast<int>(made.checkpoints.size()));
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

TEST_CASE("A run through a span fetches the next one ahead", "[gzip][gzran]") {
  auto const made = testing::gzip_blob({{compressible(600000, 9), 6, 0, 10000}}).spaced(100000);
  REQUIRE(made.checkpoints.size() > 3);
  Gate const gate(made.blob);
  gate.open_to(everything);
  GzranOptions options;
  options.size = made.content.size();
  auto const gzran = Gzran<Gate>::make(gate, made.index(), options);
  REQUIRE(gzran.has_value());

  Bytes out(static_cast<std::size_t>(made.checkpoints[1].out) / 2);
  REQUIRE(gzran->read_at(0, out).has_value());

  for (int i = 0; i < 2000 && gate.streams() < 2; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(gate.streams() == 2);
}

}  // namespace
}  // namespace erofs_oci
