// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/verified.hpp>  // first: proves that the header stands alone

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
namespace verified_test {

template <class Inner>
using Checked256 = Verified<Inner, Sha256>;
static_assert(RandomAccessSource<Checked256<Checked256<Memory>>>);

// Chunks of `step` bytes, each after the first beginning one byte early, as gzip spans do.
std::vector<VerifiedChunk> chunks_of(Bytes const& bytes, std::size_t step) {
  std::vector<VerifiedChunk> chunks;
  for (std::size_t at = 0; at < bytes.size(); at += step) {
    auto const begin = at == 0 || step == 1 ? at : at - 1;
    auto const end = std::min(bytes.size(), at + step);
    chunks.push_back({begin, end, digest_of(std::span(bytes).subspan(begin, end - begin))});
  }
  return chunks;
}

// The same, with ends of some chunks that have a digest of their own.
std::vector<VerifiedChunk> chunks_with_ends(Bytes const& bytes, std::size_t step) {
  std::vector<VerifiedChunk> all;
  auto const chunks = chunks_of(bytes, step);
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    all.push_back(chunks[i]);
    auto const end = chunks[i].end;
    auto const most = i + 1 < chunks.size() ? chunks[i + 1].begin : end;
    for (auto from = chunks[i].begin + 1 + *rc::gen::inRange<std::uint64_t>(0, 8); from < most;
         from += 1 + *rc::gen::inRange<std::uint64_t>(0, 20)) {
      all.push_back({from, end, digest_of(std::span(bytes).subspan(from, end - from))});
    }
  }
  return all;
}

TEST_CASE("Verified reads as what it checks", "[combinator][verified][property]") {
  rc::prop("for all bytes and chunk sizes", [] {
    auto const bytes = *testing::any_bytes();
    auto const step = *rc::gen::inRange<std::size_t>(1, 40);
    auto verified = Checked256<Memory>::make(Memory(bytes), chunks_of(bytes, step));
    RC_ASSERT(verified.has_value());
    testing::obeys_laws(AnySource(*std::move(verified)), bytes);
  });
  rc::prop("for all bytes and ends of chunks", [] {
    auto const bytes = *testing::any_bytes();
    auto const step = *rc::gen::inRange<std::size_t>(1, 40);
    auto verified = Checked256<Memory>::make(Memory(bytes), chunks_with_ends(bytes, step));
    RC_ASSERT(verified.has_value());
    testing::obeys_laws(AnySource(*std::move(verified)), bytes);
  });
  rc::prop("for all bytes over an archetype", [] {
    auto const bytes = *testing::any_bytes();
    auto verified =
        Checked256<testing::Archetype>::make(testing::Archetype(bytes), chunks_of(bytes, 7));
    RC_ASSERT(verified.has_value());
    testing::obeys_laws(AnySource(*std::move(verified)), bytes);
  });
}

TEST_CASE("A byte that is not what it should be is never let through",
          "[combinator][verified][error]") {
  auto const good = to_bytes("0123456789abcdefghijklmnopqrstuvwxyz");
  auto const chunks = chunks_of(good, 10);
  for (std::size_t i = 0; i < good.size(); ++i) {
    auto bad = good;
    bad[i] ^= std::byte{1};
    auto const verified = Checked256<Memory>::make(Memory(bad), chunks);
    REQUIRE(verified.has_value());
    for (std::size_t at = 0; at < good.size(); ++at) {
      Bytes out(1);
      auto const n = verified->read_at(at, out);
      CAPTURE(i, at);
      if (n) {
        CHECK(out[0] == good[at]);
      } else {
        CHECK(n.error().code == Errc::digest_mismatch);
        CHECK_THAT(n.error().message(), Catch::Contains("sha256:"));
      }
      if (at == i) CHECK_FALSE(n.has_value());
    }
  }
}

TEST_CASE("A read that begins in the end of a chunk takes that alone", "[combinator][verified]") {
  auto const bytes = to_bytes("0123456789abcdefghijklmnopqrstuvwxyz");
  auto const digest = [&](std::size_t begin, std::size_t end) {
    return digest_of(std::span(bytes).subspan(begin, end - begin));
  };
  std::vector<VerifiedChunk> chunks{
      {0, 20, digest(0, 20)}, {12, 20, digest(12, 20)}, {20, 36, digest(20, 36)}};
  auto changed = bytes;
  changed[5] ^= std::byte{1};
  auto const verified = Checked256<Memory>::make(Memory(changed), chunks);
  REQUIRE(verified.has_value());
  Bytes out(10);
  CHECK(verified->read_at(14, out).value() == 10);
  CHECK(as_text(out) == "efghijklmn");
  CHECK(verified->read_at(11, out).error().code == Errc::digest_mismatch);

  // The digest of the end counts for who begins there, and for nobody else.
  chunks[1].digest = digest(0, 1);
  auto const lying = Checked256<Memory>::make(Memory(bytes), chunks);
  REQUIRE(lying.has_value());
  Bytes all(36);
  CHECK(lying->read_at(0, all).value() == 36);
  CHECK(all == bytes);
  CHECK(lying->read_at(14, out).error().code == Errc::digest_mismatch);
}

TEST_CASE("Bytes without a digest are an error", "[combinator][verified][error]") {
  auto const bytes = to_bytes("header and data");
  auto const verified = Checked256<Memory>::make(
      Memory(bytes), {{7, bytes.size(), digest_of(std::span(bytes).subspan(7))}});
  REQUIRE(verified.has_value());
  Bytes out(3);
  CHECK(verified->read_at(0, out).error().code == Errc::mismatch);
  CHECK(verified->read_at(7, out).value() == 3);
}

TEST_CASE("Bytes right behind a chunk belong to no chunk", "[combinator][verified][error]") {
  auto const bytes = to_bytes("onegaptwo");
  auto const digest = [&](std::size_t at) { return digest_of(std::span(bytes).subspan(at, 3)); };
  using Unread = testing::Flaky<Memory>;
  auto const verified = Checked256<Unread>::make(Unread(Memory(bytes), {.count = 1000}),
                                                 {{0, 3, digest(0)}, {6, 9, digest(6)}});
  REQUIRE(verified.has_value());
  Bytes out(1);
  CHECK(verified->read_at(3, out).error().code == Errc::mismatch);
  CHECK(verified->read_at(5, out).error().code == Errc::mismatch);
}

// Its first stream ends early, and every later one is an error.
class EndsEarly {
 public:
  EndsEarly(Bytes bytes, std::uint64_t first)
      : later_(Memory(std::move(bytes)), {1, 1000}), first_(first) {}

  [[nodiscard]] std::uint64_t size() const noexcept { return later_.size(); }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return later_.read_at(offset, out);
  }
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    return later_.stream(offset, std::min(length, first_), sink);
  }

 private:
  testing::Flaky<Memory> later_;
  std::uint64_t first_;
};

TEST_CASE("A source that ends inside a chunk is an error", "[combinator][verified][error]") {
  auto const bytes = to_bytes("123456");
  for (std::uint64_t came = 0; came < bytes.size(); ++came) {
    auto const verified = Checked256<EndsEarly>::make(
        EndsEarly(bytes, came), {{0, 3, digest_of(std::span(bytes).first(3))},
                                 {3, 6, digest_of(std::span(bytes).subspan(3))}});
    REQUIRE(verified.has_value());
    Bytes out(6);
    CAPTURE(came);
    CHECK(verified->read_at(0, out).error().code == Errc::truncated);
  }
}

TEST_CASE("Chunks that leave the source or go back are refused", "[combinator][verified][error]") {
  auto const make = [](std::vector<VerifiedChunk> chunks) {
    return Checked256<Memory>::make(Memory(Bytes(10)), std::move(chunks)).has_value();
  };
  CHECK(make({}));
  CHECK(make({{0, 10, {}}}));
  CHECK_FALSE(make({{0, 11, {}}}));
  CHECK_FALSE(make({{5, 5, {}}}));
  CHECK_FALSE(make({{5, 4, {}}}));
  CHECK_FALSE(make({{0, 5, {}}, {0, 6, {}}}));
  CHECK_FALSE(make({{0, 6, {}}, {2, 5, {}}}));
}

}  // namespace verified_test
}  // namespace erofs_oci
