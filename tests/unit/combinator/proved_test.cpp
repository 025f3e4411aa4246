// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/proved.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <future>
#include <random>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/archetype.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/generators.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace proved_test {

using namespace std::chrono_literals;

template <class Inner>
using Proved256 = Proved<Inner, Sha256>;
static_assert(RandomAccessSource<Proved256<Proved256<Memory>>>);
static_assert(RandomAccessSource<Guarded<Proved256<Memory>>>);

/// A server of some bytes that can begin to send others, and counts what it sends.
class Server {
 public:
  struct State {
    Bytes bytes;
    std::atomic<std::size_t> flipped{~std::size_t{0}};  // a bit that is sent wrong; none there
    std::atomic<std::uint64_t> sent{0};
    std::atomic<bool> fails{false};
  };

  explicit Server(Bytes bytes) : state_(std::make_shared<State>()) {
    state_->bytes = std::move(bytes);
  }

  [[nodiscard]] State& state() const { return *state_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return state_->bytes.size(); }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    if (state_->fails) return fail(Errc::unavailable, "server");
    auto const n = readable(size(), offset, out.size());
    auto const from = static_cast<std::size_t>(std::min(offset, size()));
    std::ranges::copy(std::span(state_->bytes).subspan(from, n), out.begin());
    auto const bit = state_->flipped.load();
    if (bit / 8 >= from && bit / 8 < from + n) {
      out[bit / 8 - from] ^= std::byte{1} << static_cast<int>(bit % 8);
    }
    state_->sent += n;
    return n;
  }
  [[nodiscard]] std::string describe() const { return "blob"; }

 private:
  std::shared_ptr<State> state_;
};

using ProvedServer = Proved256<Server>;

Bytes noise(std::size_t size, std::uint32_t seed = 1) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

ProvedServer proved(Server const& server, Digest const& digest, ProvedOptions options = {}) {
  auto made = ProvedServer::make(server, digest, options);
  if (!made) FAIL(made.error().message());
  return *std::move(made);
}

/// Reads it all in pieces of that size, in random order.
Result<void> read_all(ProvedServer const& source, std::size_t step, std::uint32_t seed) {
  std::vector<std::uint64_t> offsets;
  for (std::uint64_t at = 0; at < source.size(); at += step) offsets.push_back(at);
  std::mt19937 random(seed);
  std::ranges::shuffle(offsets, random);
  Bytes out(step);
  for (auto const at : offsets) EROFS_OCI_TRY(source.read_at(at, out));
  return {};
}

/// Waits for the thread.
bool comes(auto const& what) {
  for (auto i = 0; i < 2000; ++i) {
    if (what()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

bool is_decided(Proof const& proof) {
  return comes([&] { return proof.proved() || !proof.check(); });
}

TEST_CASE("Proved reads as what it checks", "[combinator][proved][property]") {
  rc::prop("for all bytes, pieces and windows, also once it is proved", [] {
    auto const bytes = *testing::any_bytes();
    ProvedOptions const options{.piece = *rc::gen::inRange<std::uint64_t>(1, 40),
                                .window = *rc::gen::inRange<std::uint64_t>(0, 100),
                                .request = *rc::gen::inRange<std::uint64_t>(1, 100),
                                .background = *rc::gen::arbitrary<bool>(),
                                .pause = 1ms};
    auto made =
        Proved256<testing::Archetype>::make(testing::Archetype(bytes), digest_of(bytes), options);
    RC_ASSERT(made.has_value());
    auto const proof = made->proof();
    AnySource const source(Guarded(*std::move(made), proof));
    testing::obeys_laws(source, bytes);
    testing::obeys_laws_concurrently(source, bytes);
    Bytes all(bytes.size());
    RC_ASSERT(source.read_at(0, all).has_value());
    RC_ASSERT(comes([&] { return proof->proved(); }));
    RC_ASSERT(proof->seen() == bytes.size());
    testing::obeys_laws(source, bytes);
  });
}

TEST_CASE("A wrong bit is found once every byte has been read, wherever and in whatever order",
          "[combinator][proved][error]") {
  std::mt19937 random(7);
  for (auto round = 0; round < 200; ++round) {
    auto const bytes = noise(1 + random() % 3000, static_cast<std::uint32_t>(round));
    Server const server(bytes);
    auto const bit = random() % (bytes.size() * 8);
    server.state().flipped = bit;
    auto const source =
        proved(server, digest_of(bytes),
               {.piece = 1 + random() % 500, .window = random() % 2000, .pause = 1ms});
    CAPTURE(round, bit, bytes.size());
    static_cast<void>(read_all(source, 1 + random() % 300, static_cast<std::uint32_t>(round)));
    REQUIRE(is_decided(*source.proof()));
    Bytes out(1);
    for (auto const at : {std::size_t{0}, bytes.size() / 2, bytes.size() - 1}) {
      auto const read = source.read_at(at, out);
      REQUIRE_FALSE(read);
      CHECK(read.error().code == Errc::digest_mismatch);
      CHECK_THAT(read.error().message(),
                 Catch::Contains("blob") && Catch::Contains(digest_of(bytes).to_string()));
    }
    CHECK(source.read_at(bytes.size(), out) == std::size_t{0});
  }
}

TEST_CASE("What was handed on never changes", "[combinator][proved][error]") {
  auto const bytes = noise(1000);
  Server const server(bytes);
  auto const source = proved(server, digest_of(bytes), {.piece = 100, .window = 0});
  Bytes out(10);
  REQUIRE(source.read_at(510, out));
  auto const wrong_first = GENERATE(false, true);
  if (wrong_first) {
    server.state().flipped = 8 * 715;
    REQUIRE(source.read_at(710, out));
    server.state().flipped = ~std::size_t{0};
  } else {
    REQUIRE(source.read_at(710, out));
    server.state().flipped = 8 * 715;
  }
  Bytes more(300);  // more than the piece that is kept
  auto const again = source.read_at(600, more);
  REQUIRE_FALSE(again);
  CHECK(again.error().code == Errc::digest_mismatch);
  CHECK_THAT(again.error().message(), Catch::Contains("bytes 700 to 800"));
  CHECK_FALSE(source.read_at(510, out));
}

TEST_CASE("Once it is proved, a wrong byte fails its own read only",
          "[combinator][proved][error]") {
  auto const bytes = noise(1000);
  Server const server(bytes);
  auto const source = proved(server, digest_of(bytes), {.piece = 100});
  Bytes all(1000);
  REQUIRE(source.read_at(0, all));
  REQUIRE(source.proof()->proved());
  server.state().flipped = 8 * 250;
  CHECK(source.read_at(0, all).error().code == Errc::digest_mismatch);
  CHECK(source.read_at(300, std::span(all).first(500)));
  server.state().flipped = ~std::size_t{0};
  CHECK(source.read_at(0, all));
  CHECK(all == bytes);
}

TEST_CASE("Reads that come nearly in order cost no second fetch", "[combinator][proved]") {
  auto const bytes = noise(100'000);
  Server const server(bytes);
  auto const source = proved(server, digest_of(bytes), {.piece = 1000, .window = 20'000});
  Bytes out(4500);
  for (std::uint64_t at = 0; at < bytes.size(); at += 9000) {
    REQUIRE(source.read_at(std::min<std::uint64_t>(at + 4500, bytes.size()), out));
    REQUIRE(source.read_at(at, out));
  }
  CHECK(source.proof()->proved());
  CHECK(server.state().sent == bytes.size());
}

TEST_CASE("Reads out of order are read again once all are there", "[combinator][proved]") {
  auto const bytes = noise(10'000);
  Server const server(bytes);
  auto const source = proved(server, digest_of(bytes), {.piece = 1000, .window = 0, .pause = 1ms});
  Bytes out(1000);
  for (auto at = bytes.size(); at > 1000; at -= 1000) REQUIRE(source.read_at(at - 1000, out));
  CHECK(server.state().sent == 9000);
  CHECK(source.proof()->seen() == 9000);
  CHECK_FALSE(source.proof()->proved());
  REQUIRE(source.read_at(0, out));
  CHECK(comes([&] { return source.proof()->proved(); }));
  CHECK(server.state().sent == 10'000 + 9000);
}

TEST_CASE("In the background the rest is fetched, also after errors", "[combinator][proved]") {
  auto const bytes = noise(10'000);
  Server const server(bytes);
  auto const is_bad = GENERATE(false, true);
  if (is_bad) server.state().flipped = 8 * 9999;
  server.state().fails = true;
  auto const source = proved(server, digest_of(bytes),
                             {.piece = 1000, .request = 2000, .background = true, .pause = 1ms});
  std::promise<std::string> told;
  source.proof()->on_refuted([&](Error const& error) { told.set_value(error.message()); });
  std::this_thread::sleep_for(20ms);
  CHECK(source.proof()->check());
  server.state().fails = false;
  REQUIRE(is_decided(*source.proof()));
  CHECK(source.proof()->proved() != is_bad);
  if (!is_bad) return;
  CHECK_THAT(told.get_future().get(), Catch::Contains(digest_of(bytes).to_string()));
  Bytes out(1);
  CHECK_FALSE(source.read_at(0, out));
}

TEST_CASE("An error of the layer below is that of its read, and no refutation",
          "[combinator][proved][error]") {
  auto const bytes = noise(1000);
  Server const server(bytes);
  auto const source = proved(server, digest_of(bytes), {.piece = 100});
  Bytes all(1000);
  server.state().fails = true;
  CHECK(source.read_at(0, all).error().code == Errc::unavailable);
  server.state().fails = false;
  CHECK(source.read_at(0, all));
  CHECK(source.proof()->proved());
}

TEST_CASE("What stands above is stopped, too, and stays so", "[combinator][proved][error]") {
  auto const proof = std::make_shared<Proof>(4);
  Guarded const source(Memory(to_bytes("abcd")), proof);
  Bytes out(2);
  CHECK(source.read_at(0, out));
  proof->refute(make_error(Errc::digest_mismatch, "found by an earlier worker"));
  CHECK_THAT(source.read_at(0, out).error().message(), Catch::Contains("earlier worker"));
  CHECK_FALSE(source.stream(0, 4, [](auto) { return true; }));
  CHECK(source.read_at(4, out) == std::size_t{0});
  proof->prove();
  CHECK_FALSE(source.read_at(0, out));
}

TEST_CASE("A large source has larger pieces and no larger table", "[combinator][proved]") {
  class Vast {
   public:
    [[nodiscard]] std::uint64_t size() const noexcept { return std::uint64_t{1} << 40; }
    [[nodiscard]] Result<std::size_t> read_at(std::uint64_t at, std::span<std::byte> out) const {
      std::ranges::fill(out, std::byte{0});
      return readable(size(), at, out.size());
    }
  };
  auto const source = Proved256<Vast>::make(Vast(), Digest());
  REQUIRE(source);
  Bytes out(1);
  REQUIRE(source->read_at(std::uint64_t{1} << 39, out));
  CHECK(source->proof()->seen() <= 2u << 20);
  CHECK(source->proof()->seen() >= 1u << 20);
  CHECK(ProvedServer::make(Server({}), digest_of({}, DigestAlgorithm::sha512)).error().code ==
        Errc::invalid_argument);
}

}  // namespace proved_test
}  // namespace erofs_oci
