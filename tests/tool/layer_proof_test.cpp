// SPDX-License-Identifier: Apache-2.0
#include "layer_proof.hpp"  // first: proves that the header stands alone

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>
#include <scratch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/testing/generators.hpp>
#include <erofs_oci/testing/laws.hpp>

#include "packed_layer.hpp"
#include "verify.hpp"

namespace mount_oci {
namespace layer_proof_test {

using erofs_oci::AnySource;
using erofs_oci::Bytes;
using erofs_oci::Digest;
using erofs_oci::digest_of;
using erofs_oci::IndexStore;
using erofs_oci::Memory;
using erofs_oci::Shared;
using erofs_oci::StoredLayer;
using erofs_oci::tarindex::BuiltLayer;
using Kind = Verdict::Kind;
namespace testing = erofs_oci::testing;

/// An index from elsewhere.
StoredLayer claimed(BuiltLayer const& built) {
  auto index = erofs_oci::opened_layer(built).value();
  index.unproved = digest_of(erofs_oci::index_files(built)->index);
  return index;
}

Verdict prove(Bytes const& blob, Digest const& digest, BuiltLayer const& index,
              std::string const& diff_id = {}, bool is_claim = true) {
  auto stored = claimed(index);
  if (!is_claim) stored.unproved.reset();
  auto const next = [](std::uint64_t) { return true; };
  return prove_layer(found_layer(blob, digest), stored, diff_id, {}, next, {}).value();
}

TEST_CASE("A verdict tells whose fault it is", "[tool][layer_proof][error]") {
  PackedLayer const layer;
  auto const& digest = layer.index.index.blob;
  auto const contents = digest_of(layer.tar).to_string();

  CHECK(prove(layer.gzip, digest, layer.index, contents).is_proved());
  CHECK(prove(layer.gzip, digest, layer.index).is_proved());

  auto const other = prove(layer.gzip, digest, layer.index, "sha256:" + std::string(64, '0'));
  CHECK(other.kind == Kind::other_contents);
  CHECK(other.is_final());

  auto lie = layer.index;
  lie.index.digests.back() = Digest();
  auto const piece = prove(layer.gzip, digest, lie);
  CHECK(piece.kind == Kind::wrong_index);
  CHECK_THAT(piece.problem, Catch::StartsWith("its index is wrong: another digest of bytes "));

  // Bytes that the digests of the index reject are the registry's fault: no read gets them.
  auto flipped = layer.gzip;
  flipped[flipped.size() / 2] ^= std::byte{1};
  auto const caught = prove(flipped, digest, layer.index);
  CHECK(caught.kind == Kind::wrong_bytes);
  CHECK_FALSE(caught.is_final());

  // Bytes that they accept are handed on: the index is one of another layer.
  PackedLayer const evil(7);
  auto const served = prove(evil.gzip, digest, evil.index);
  CHECK(served.kind == Kind::wrong_index);
  CHECK_THAT(served.problem, Catch::Contains(digest_of(evil.gzip).to_string()));
  CHECK(prove(evil.gzip, digest, evil.index, {}, false).kind == Kind::wrong_bytes);
}

TEST_CASE("A digest of a piece that is another one is found, whichever it is",
          "[tool][layer_proof][property][error]") {
  PackedLayer const layer;
  REQUIRE(layer.index.index.digests.size() > 3);
  rc::prop("one digest of the index is another", [&] {
    auto lie = layer.index;
    auto const i = *rc::gen::inRange<std::size_t>(0, lie.index.digests.size());
    lie.index.digests[i] = digest_of(erofs_oci::as_bytes("another"));

    auto const verdict = prove(layer.gzip, layer.index.index.blob, lie);

    RC_ASSERT(verdict.kind == Kind::wrong_index);
    auto const begin = layer.index.index.chunks()[i].begin;
    RC_ASSERT(verdict.problem.find("another digest of bytes " + std::to_string(begin) + " to ") !=
              std::string::npos);
  });
}

/// Hands its bytes on in pieces of a length.
struct Trickle {
  Bytes bytes;
  std::size_t piece;

  [[nodiscard]] std::uint64_t size() const noexcept { return bytes.size(); }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return Memory(bytes).read_at(offset, out);
  }
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    erofs_oci::ByteSink sink) const {
    auto rest = std::span<std::byte const>(bytes).subspan(static_cast<std::size_t>(offset),
                                                          static_cast<std::size_t>(length));
    while (!rest.empty()) {
      auto const part = rest.first(std::min(piece, rest.size()));
      if (!sink(part)) break;
      rest = rest.subspan(part.size());
    }
    return {};
  }
};

TEST_CASE("Pieces that share a byte are compared however the bytes come",
          "[tool][layer_proof][property]") {
  PackedLayer const layer;
  auto const chunks = layer.index.index.chunks();
  auto const shares = [&](std::size_t i) { return chunks[i].begin + 1 == chunks[i - 1].end; };
  std::size_t shared = 0;
  for (std::size_t i = 1; i < chunks.size(); ++i) shared += shares(i) ? 1U : 0U;
  REQUIRE(shared > 0);
  for (auto const piece : std::initializer_list<std::size_t>{1, 2, 7, 4096, 40'000}) {
    auto const layer_of = found_layer(layer.gzip, layer.index.index.blob);
    auto const opened = erofs_oci::opened_layer(layer.index).value();
    auto const compared =
        compare_layer(AnySource(Trickle{layer.gzip, piece}), erofs_oci::DigestAlgorithm::sha256,
                      index_to_verify(layer_of, opened, {}).value(), {})
            .value();
    CHECK_FALSE(compared.wrong_piece);
    CHECK_FALSE(compared.difference);
  }
}

TEST_CASE("Paced reads as what it paces", "[tool][layer_proof][property]") {
  rc::prop("for all bytes", [] {
    auto const bytes = *testing::any_bytes();
    testing::obeys_laws(AnySource(Paced(Shared<AnySource>(AnySource(Memory(bytes))),
                                        [](std::uint64_t) { return true; })),
                        bytes);
  });
}

TEST_CASE("Who paces is asked before each MiB, and can end it", "[tool][layer_proof]") {
  Bytes const bytes(3'000'000, std::byte{5});
  std::vector<std::uint64_t> asked;
  auto const ask = [&](std::uint64_t at) {
    asked.push_back(at);
    return at == 0;
  };
  Paced const paced(Shared<AnySource>(AnySource(Memory(bytes))), ask);
  std::uint64_t got = 0;

  auto const done = paced.stream(0, bytes.size(), [&](auto piece) {
    got += piece.size();
    return true;
  });

  REQUIRE_FALSE(done);
  CHECK(done.error().code == Errc::stopping);
  CHECK(asked == std::vector<std::uint64_t>{0, 1 << 20});
  CHECK(got == 1 << 20);
}

TEST_CASE("Only what was read or proved counts for all images", "[tool][layer_proof]") {
  struct Row {
    Kind kind;
    bool is_claim;
    bool is_shared;   ///< afterwards all images find it
    bool is_refuted;  ///< afterwards nobody finds the claim
  };
  auto const row = GENERATE(
      Row{Kind::proved, true, true, false}, Row{Kind::proved, false, true, false},
      Row{Kind::wrong_index, true, false, true}, Row{Kind::wrong_index, false, false, false},
      Row{Kind::wrong_bytes, true, false, false}, Row{Kind::other_contents, true, false, false});
  erofs_oci::test::Scratch const dir;
  auto const store = IndexStore::open(dir / "store").value();
  PackedLayer const layer;
  auto const& blob = layer.index.index.blob;
  auto const image = digest_of(erofs_oci::as_bytes("an image"));
  auto const other = digest_of(erofs_oci::as_bytes("another image"));
  auto const claim = row.is_claim ? std::optional(image) : std::nullopt;
  REQUIRE(store.put_layer(blob, layer.index, claim));
  auto const index = *store.find_layer(blob, claim).value();
  REQUIRE(index.unproved.has_value() == row.is_claim);

  REQUIRE(keep_verdict(store, blob, index, {row.kind, "why"}));

  CHECK(store.find_layer(blob, other)->has_value() == row.is_shared);
  auto const own = store.find_layer(blob, image).value();
  CHECK(own.has_value() == (row.is_shared || (row.is_claim && !row.is_refuted)));
  if (row.kind == Kind::proved) CHECK_FALSE(own->unproved);
  if (row.is_refuted) CHECK(store.find_refutation(blob, *index.unproved) == "why");
}

}  // namespace layer_proof_test
}  // namespace mount_oci
