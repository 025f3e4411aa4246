// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/scanner.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>

namespace erofs_oci {
namespace scanner_test {

struct Scan {
  Result<void> outcome;
  testing::GzipBlob found;  // `blob` is what was told as compressed
  bool in_order = true;     // each checkpoint came between the right compressed bytes
};

template <class D>
Scan scan(Bytes const& blob, std::uint64_t span_size, std::size_t piece) {
  Scan result;
  auto& found = result.found;
  GzipScanEvents events;
  events.decoded = [&](std::span<std::byte const> bytes) -> Result<void> {
    found.content.insert(found.content.end(), bytes.begin(), bytes.end());
    return {};
  };
  events.checkpoint = [&](Checkpoint const& point,
                          std::span<std::byte const, gzip_window_size> window) {
    found.checkpoints.push_back(point);
    found.windows.push_back(to_bytes(window));
    result.in_order =
        result.in_order && found.blob.size() == point.in && found.content.size() == point.out;
  };
  events.compressed = [&](std::span<std::byte const> bytes) {
    found.blob.insert(found.blob.end(), bytes.begin(), bytes.end());
  };
  GzipScanner<D> scanner(span_size, events);
  for (std::size_t at = 0; at < blob.size() && result.outcome; at += piece) {
    result.outcome = scanner.push(std::span(blob).subspan(at, std::min(piece, blob.size() - at)));
  }
  if (result.outcome) result.outcome = scanner.finish();
  return result;
}

Bytes any_content() {
  auto const size = *rc::gen::element<std::size_t>(0, 1, 100, 5000, 70000, 200000);
  auto const seed = *rc::gen::inRange<std::size_t>(0, 50);
  Bytes content(size);
  std::uint32_t x = static_cast<std::uint32_t>(seed);
  for (std::size_t i = 0; i < size; ++i) {
    x = x * 1664525U + 1013904223U;
    content[i] = i > 9000 && (x >> 30) != 0 ? content[i - 8999] : std::byte(x >> 26);
  }
  return content;
}

template <class D>
void check_scan() {
  std::vector<testing::MemberRecipe> members;
  auto const count = *rc::gen::inRange(1, 4);
  for (int i = 0; i < count; ++i) {
    testing::MemberRecipe recipe{any_content()};
    recipe.level = *rc::gen::inRange(0, 10);
    recipe.strategy = *rc::gen::element(Z_DEFAULT_STRATEGY, Z_HUFFMAN_ONLY, Z_FIXED);
    recipe.flush_every = *rc::gen::element<std::size_t>(0, 300, 9000);
    recipe.name = *rc::gen::element<std::string>("", "name");
    members.push_back(recipe);
  }
  auto const trailing = *rc::gen::element<Bytes>(Bytes{}, Bytes(512), to_bytes("junk"));
  auto const made = testing::gzip_blob(members, trailing);
  auto const span_size = *rc::gen::element<std::uint64_t>(1, 1000, 30000, 100000, 1 << 22);
  auto const piece = *rc::gen::element<std::size_t>(1, 19, 4096, 1 << 20);

  auto const got = scan<D>(made.blob, span_size, piece);

  if (!got.outcome) RC_FAIL(got.outcome.error().message());
  auto const expected = made.spaced(span_size);
  RC_ASSERT(got.found.content == made.content);
  RC_ASSERT(got.found.blob == made.blob);
  RC_ASSERT(got.in_order);
  RC_ASSERT(got.found.checkpoints == expected.checkpoints);
  RC_ASSERT(got.found.windows == expected.windows);
}

TEMPLATE_TEST_CASE("A scan finds the checkpoints that zlib finds", "[gzip][scanner][property]",
                   ZlibBlockDecoder, DefaultBlockDecoder) {
  rc::prop("for all members, span sizes and pieces", [] { check_scan<TestType>(); });
}

TEMPLATE_TEST_CASE("A scan notices every flipped bit that gzip would", "[gzip][scanner][error]",
                   ZlibBlockDecoder, DefaultBlockDecoder) {
  auto const made =
      testing::gzip_blob({{to_bytes("content, content, content, more content"), 6, 0, 9}});
  for (std::size_t i = 0; i < made.blob.size(); ++i) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      if (i > 3 && i < 10)
        continue;  // time, flags of the compressor, system: not checked by anyone
      auto blob = made.blob;
      blob[i] ^= std::byte(1U << bit);
      auto const got = scan<TestType>(blob, 1000, 100);
      CAPTURE(i, bit);
      CHECK((!got.outcome || got.found.content == made.content));
    }
  }
}

TEST_CASE("A scan of a cut stream fails at every length", "[gzip][scanner][error]") {
  auto const made = testing::gzip_blob({{to_bytes("content, content, content"), 6, 0, 9, "name"}});
  for (std::size_t size = 0; size < made.blob.size(); ++size) {
    CAPTURE(size);
    auto const cut =
        Bytes(made.blob.begin(), made.blob.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK_FALSE(scan<DefaultBlockDecoder>(cut, 1000, 100).outcome.has_value());
  }
}

}  // namespace scanner_test
}  // namespace erofs_oci
