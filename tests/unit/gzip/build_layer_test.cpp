// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/build_layer.hpp>  // first: proves that the header stands alone

#include <catch2/catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/gzip/index_file.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace {

Bytes sample(std::size_t size, std::uint32_t seed) {
  Bytes content(size);
  auto x = seed;
  for (std::size_t i = 0; i < size; ++i) {
    x = x * 1664525U + 1013904223U;
    bool const repeat = i > 30000 && (x >> 29) > 2;
    content[i] = repeat ? content[i - 29989] : std::byte(x >> 26);
  }
  return content;
}

template <class D = DefaultBlockDecoder>
Result<LayerIndex> build(Bytes const& blob, LayerIndexOptions options, std::size_t piece = 5000) {
  LayerIndexBuilder<Sha256, D> builder(options, [](auto) -> Result<void> { return {}; });
  for (std::size_t at = 0; at < blob.size(); at += piece) {
    auto const ok = builder.push(std::span(blob).subspan(at, std::min(piece, blob.size() - at)));
    if (!ok) return fail(ok.error());
  }
  return builder.finish();
}

Bytes write(LayerIndex const& index) {
  Bytes file;
  auto const ok = write_index_file<Sha256>(index, [&](std::span<std::byte const> piece) {
    file.insert(file.end(), piece.begin(), piece.end());
    return true;
  });
  REQUIRE(ok.has_value());
  return file;
}

Result<OpenedIndex> read(Bytes file) {
  return read_index_file<Sha256>(AnySource(Memory(std::move(file))));
}

TEST_CASE("A built index says what is true of the blob", "[gzip][build_layer][property]") {
  rc::prop("for all blobs, span sizes and pieces", [] {
    std::vector<testing::MemberRecipe> members;
    auto const count = *rc::gen::inRange(1, 4);
    for (int i = 0; i < count; ++i) {
      testing::MemberRecipe recipe{sample(*rc::gen::element<std::size_t>(0, 10, 40000, 200000),
                                          *rc::gen::arbitrary<std::uint32_t>())};
      recipe.level = *rc::gen::inRange(0, 10);
      recipe.flush_every = *rc::gen::element<std::size_t>(0, 1000, 20000);
      members.push_back(recipe);
    }
    auto const made = testing::gzip_blob(members, *rc::gen::element<Bytes>(Bytes{}, Bytes(512)));
    LayerIndexOptions options;
    options.span_size = *rc::gen::element<std::uint64_t>(1000, 64 << 10, 4 << 20);

    auto const index = build(made.blob, options, *rc::gen::element<std::size_t>(7, 5000, 1 << 20));

    if (!index) RC_FAIL(index.error().message());
    auto const expected = made.spaced(options.span_size);
    RC_ASSERT(index->blob == digest_of(made.blob));
    RC_ASSERT(index->diff_id == digest_of(made.content));
    RC_ASSERT(index->blob_size == made.blob.size());
    RC_ASSERT(index->decoded_size == made.content.size());
    RC_ASSERT(index->spans.size() == expected.checkpoints.size());
    for (std::size_t i = 0; i < index->spans.size(); ++i) {
      auto const& span = index->spans[i];
      RC_ASSERT(span.start == expected.checkpoints[i]);
      auto const begin = span.start.first_byte();
      auto const bytes = std::span(made.blob).subspan(
          static_cast<std::size_t>(begin), static_cast<std::size_t>(index->blob_end(i) - begin));
      RC_ASSERT(span.digest == digest_of(bytes));
    }
  });
}

TEST_CASE("Sparse windows are enough to read by", "[gzip][build_layer][property]") {
  rc::prop("for all blobs and span sizes", [] {
    testing::MemberRecipe recipe{sample(300000, *rc::gen::arbitrary<std::uint32_t>())};
    recipe.level = *rc::gen::inRange(1, 10);
    recipe.flush_every = *rc::gen::element<std::size_t>(0, 7000);
    auto const made = testing::gzip_blob({recipe});
    LayerIndexOptions options;
    options.span_size = *rc::gen::element<std::uint64_t>(3000, 64 << 10);
    auto const index = build(made.blob, options);
    RC_ASSERT(index.has_value());

    auto const opened = read(write(*index));

    RC_ASSERT(opened.has_value());
    auto gzran = Gzran<Memory>::make(Memory(made.blob), opened->gzip());
    if (!gzran) RC_FAIL(gzran.error().message());
    testing::obeys_laws(AnySource(*std::move(gzran)), made.content);
  });
}

TEST_CASE("Both decoders build the same file, byte for byte", "[gzip][build_layer]") {
  auto const made = testing::gzip_blob({{sample(500000, 1), 6, 0, 9000}, {sample(300000, 2), 1}});
  LayerIndexOptions options;
  options.span_size = 64 << 10;

  auto const a = build<ZlibBlockDecoder>(made.blob, options, 1 << 20);
  auto const b = build<DefaultBlockDecoder>(made.blob, options, 777);

  REQUIRE(a.has_value());
  REQUIRE(b.has_value());
  CHECK(write(*a) == write(*b));
}

TEST_CASE("A plain blob has spans with digests too", "[gzip][build_layer]") {
  auto const size = GENERATE(0U, 1U, 99999U, 131072U, 200000U);
  auto const blob = sample(size, 3);
  LayerIndexOptions const options{BlobEncoding::plain, 64 << 10};

  auto const index = build(blob, options, 10007);

  REQUIRE(index.has_value());
  CHECK(index->blob == index->diff_id);
  CHECK(index->decoded_size == size);
  CHECK(index->spans.size() == std::max<std::size_t>(1, (size + 65535) / 65536));
  for (std::size_t i = 0; i < index->spans.size(); ++i) {
    auto const begin = static_cast<std::size_t>(index->spans[i].start.in);
    CHECK(begin == i * 65536);
    CHECK(index->spans[i].digest ==
          digest_of(std::span(blob).subspan(begin,
                                            static_cast<std::size_t>(index->blob_end(i)) - begin)));
  }
  CHECK(read(write(*index)).has_value());
}

TEST_CASE("Every flipped bit and every cut of an index file is noticed",
          "[gzip][index_file][error]") {
  auto const made = testing::gzip_blob({{sample(120000, 4), 6, 0, 20000}});
  auto const index = build(made.blob, {BlobEncoding::gzip, 64 << 10});
  REQUIRE(index.has_value());
  auto const file = write(*index);
  auto const read_all = [](Bytes bytes) -> Result<void> {
    auto const opened = read(std::move(bytes));
    if (!opened) return fail(opened.error());
    for (std::size_t i = 0; i < opened->index.spans.size(); ++i) {
      Bytes window(gzip_window_size);
      auto const ok = opened->window(i, std::span<std::byte, gzip_window_size>(window));
      if (!ok) return ok;
    }
    return {};
  };
  REQUIRE(read_all(file).has_value());

  auto const step = std::max<std::size_t>(1, file.size() / 3000);
  for (std::size_t i = 0; i < file.size(); i += i < 600 ? 1 : step) {
    auto bad = file;
    bad[i] ^= std::byte(1U << (i % 8));
    CAPTURE(i);
    CHECK_FALSE(read_all(bad).has_value());
    bad.resize(i);
    CHECK_FALSE(read_all(bad).has_value());
  }
  auto longer = file;
  longer.push_back({});
  CHECK_FALSE(read_all(longer).has_value());
}

TEST_CASE("A blob that is no gzip stream gives an error with its offset",
          "[gzip][build_layer][error]") {
  auto const blob = testing::gzip_blob({{sample(100000, 5), 6}}).blob;
  auto bad = blob;
  bad[bad.size() - 6] ^= std::byte{1};  // the CRC

  auto const wrong_crc = build(bad, {});
  REQUIRE_FALSE(wrong_crc.has_value());
  CHECK(wrong_crc.error().code == Errc::corrupt);
  CHECK_THAT(wrong_crc.error().message(), Catch::Contains("blob offset"));

  auto const cut = build(Bytes(blob.begin(), blob.end() - 1), {});
  REQUIRE_FALSE(cut.has_value());
  CHECK(cut.error().code == Errc::truncated);
}

}  // namespace
}  // namespace erofs_oci
