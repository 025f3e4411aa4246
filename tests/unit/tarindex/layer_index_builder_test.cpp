// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tarindex/layer_index_builder.hpp>  // first: proves that the header stands alone

#include <array>

#include <sys/resource.h>

#include <catch.hpp>
#include <rapidcheck/catch.h>
#include <sanitized.hpp>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/index_file.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace layer_index_builder_test {

template <class D = DefaultBlockDecoder>
Result<LayerIndex> build(Bytes const& blob, LayerIndexOptions options, std::size_t piece = 5000) {
  LayerIndexBuilder<D> builder(options, [](auto) -> Result<void> { return {}; });
  for (std::size_t at = 0; at < blob.size(); at += piece) {
    auto const ok = builder.push(std::span(blob).subspan(at, std::min(piece, blob.size() - at)));
    if (!ok) return fail(ok.error());
  }
  return builder.finish();
}

Bytes write(LayerIndex const& index) {
  Bytes file;
  auto const ok = write_index_file(index, [&](std::span<std::byte const> piece) {
    file.insert(file.end(), piece.begin(), piece.end());
    return true;
  });
  REQUIRE(ok.has_value());
  return file;
}

Result<OpenedIndex> read(Bytes file) {
  return read_index_file(AnySource(Memory(std::move(file))));
}

/// A gzip whose one block goes on for so many bytes, each a literal zero of the fixed code.
Bytes one_block(std::size_t size) {
  auto blob = to_bytes(as_bytes("\x1f\x8b\x08"));
  blob.resize(10);
  blob.push_back(std::byte{0x62});  // not the last block, fixed code, and the first bits
  blob.resize(blob.size() + size, std::byte{0x60});
  return blob;
}

TEST_CASE("A block that is longer than a span may be is refused while it comes",
          "[gzip][layer_index][error]") {
  LayerIndexOptions options;
  auto const most = static_cast<std::size_t>(options.memory->budget().span());
  LayerIndexBuilder<> builder(options, [](auto) -> Result<void> { return {}; });
  CHECK(builder.push(one_block(most - 1000)));
  auto const error = builder.push(Bytes(100'000, std::byte{0x60})).error();
  CHECK(error.code == Errc::unsupported);
  CHECK(error.context.find("16777216") != std::string::npos);
  CHECK(error.context.find("oci.memory") != std::string::npos);
}

TEST_CASE("Blocks that decode to nothing get checkpoints, too", "[gzip][layer_index]") {
  auto blob = one_block(0);
  blob.resize(10);
  std::size_t const count = 300'000;
  for (std::size_t i = 0; i < count; ++i) {  // empty stored blocks
    auto const end = std::byte(i + 1 == count ? 1 : 0);
    for (auto const byte : {end, std::byte{0}, std::byte{0}, std::byte{0xff}, std::byte{0xff}}) {
      blob.push_back(byte);
    }
  }
  blob.resize(blob.size() + 8);  // CRC and length of nothing
  LayerIndexOptions options;
  options.span_size = 64 << 10;

  auto const index = build(blob, options, 100'000);

  REQUIRE(index.has_value());
  CHECK(index->decoded_size == 0);
  REQUIRE(index->spans.size() > 10);
  for (std::size_t i = 0; i < index->spans.size(); ++i) {
    CHECK(index->blob_end(i) - index->spans[i].start.first_byte() <= options.span_size);
  }
  auto const opened = read(write(*index));
  CHECK(opened.has_value());
}

TEST_CASE("Windows are counted in the image's memory", "[gzip][layer_index][error]") {
  LayerIndexOptions options;
  options.span_size = 64 << 10;
  options.memory = std::make_shared<ImageMemory>(MemoryBudget{100'000});
  auto const made = testing::gzip_blob({{testing::compressible_bytes(3'000'000, 1), 6, 0, 20'000}});
  auto const index = build(made.blob, options);
  REQUIRE_FALSE(index);
  CHECK(index.error().context.find("indexes") != std::string::npos);
}

void check_pieces(LayerIndex const& index, Bytes const& blob) {
  auto at = index.digests.begin();
  for (std::size_t i = 0; i < index.spans.size(); ++i) {
    auto const end = index.blob_end(i);
    for (auto begin = index.spans[i].start.first_byte(); begin < end; begin += index_piece_size) {
      auto const bytes = std::span(blob).subspan(
          static_cast<std::size_t>(begin),
          static_cast<std::size_t>(std::min<std::uint64_t>(index_piece_size, end - begin)));
      RC_ASSERT(at != index.digests.end());
      RC_ASSERT(*at++ == digest_of(bytes));
    }
  }
  RC_ASSERT(at == index.digests.end());
  auto const chunks = index.chunks();
  RC_ASSERT(chunks.size() == index.digests.size());
  for (auto const& chunk : chunks) {
    RC_ASSERT(chunk.digest == digest_of(std::span(blob).subspan(
                                  static_cast<std::size_t>(chunk.begin),
                                  static_cast<std::size_t>(chunk.end - chunk.begin))));
  }
}

/// The first boundary, then always one within [0.5, 1.5] of `span`, or if there is none, the next.
void check_places(LayerIndex const& index, testing::GzipBlob const& made, std::uint64_t span) {
  auto const& all = made.checkpoints;
  auto place = all.begin();
  RC_ASSERT(index.spans.front().start == *place);
  for (std::size_t i = 1; i <= index.spans.size(); ++i) {
    auto const& last = *place;
    auto const distance = [&](Checkpoint const& c) { return checkpoint_distance(last, c); };
    auto const first = std::ranges::find_if(place, all.end(),
                                            [&](auto const& c) { return distance(c) >= span / 2; });
    if (i == index.spans.size()) {  // nothing was left to put one at, or too little
      auto const left = distance({made.blob.size(), made.content.size(), 0});
      RC_ASSERT(first == all.end() || left <= span + span / 2);
      return;
    }
    place = std::ranges::find(first, all.end(), index.spans[i].start);
    RC_ASSERT(place != all.end());
    RC_ASSERT(place == first || distance(*place) <= span + span / 2);
  }
}

TEST_CASE("A built index says what is true of the blob", "[gzip][layer_index][property]") {
  rc::prop("for all blobs, span sizes and pieces", [] {
    std::vector<testing::MemberRecipe> members;
    auto const count = *rc::gen::inRange(1, 4);
    for (int i = 0; i < count; ++i) {
      testing::MemberRecipe recipe{
          testing::compressible_bytes(*rc::gen::element<std::size_t>(0, 10, 40000, 200000),
                                      *rc::gen::arbitrary<std::uint32_t>())};
      recipe.level = *rc::gen::inRange(0, 10);
      recipe.flush_every = *rc::gen::element<std::size_t>(0, 1000, 20000);
      members.push_back(recipe);
    }
    auto const made = testing::gzip_blob(members, *rc::gen::element<Bytes>(Bytes{}, Bytes(512)));
    LayerIndexOptions options;
    options.span_size = *rc::gen::element<std::uint64_t>(1000, 20000, 64 << 10, 1 << 20);

    auto const index = build(made.blob, options, *rc::gen::element<std::size_t>(7, 5000, 1 << 20));

    if (!index) RC_FAIL(index.error().message());
    RC_ASSERT(index->blob == digest_of(made.blob));
    RC_ASSERT(index->diff_id == digest_of(made.content));
    RC_ASSERT(index->blob_size == made.blob.size());
    RC_ASSERT(index->decoded_size == made.content.size());
    check_pieces(*index, made.blob);
    check_places(*index, made, options.span_size);
  });
}

TEST_CASE("Sparse windows are enough to read by", "[gzip][layer_index][property]") {
  rc::prop("for all blobs and span sizes", [] {
    testing::MemberRecipe recipe{
        testing::compressible_bytes(300000, *rc::gen::arbitrary<std::uint32_t>())};
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

TEST_CASE("Both decoders build the same file, byte for byte", "[gzip][layer_index]") {
  auto const made = testing::gzip_blob({{testing::compressible_bytes(500000, 1), 6, 0, 9000},
                                        {testing::compressible_bytes(300000, 2), 1}});
  LayerIndexOptions options;
  options.span_size = 64 << 10;

  auto const a = build<ZlibBlockDecoder>(made.blob, options, 1 << 20);
  auto const b = build<DefaultBlockDecoder>(made.blob, options, 777);

  REQUIRE(a.has_value());
  REQUIRE(b.has_value());
  CHECK(write(*a) == write(*b));
}

TEST_CASE("A plain blob has spans with digests too", "[gzip][layer_index]") {
  auto const size = GENERATE(0U, 1U, 99999U, 131072U, 200000U);
  auto const blob = testing::compressible_bytes(size, 3);
  LayerIndexOptions const options{BlobEncoding::plain, 64 << 10};

  auto const index = build(blob, options, 10007);

  REQUIRE(index.has_value());
  CHECK(index->blob == index->diff_id);
  CHECK(index->decoded_size == size);
  CHECK(index->spans.size() == std::max<std::size_t>(1, (size + 65535) / 65536));
  for (std::size_t i = 0; i < index->digests.size(); ++i) {
    auto const begin = i * index_piece_size;
    auto const bytes = std::span(blob).subspan(begin).first(
        std::min<std::size_t>(index_piece_size, blob.size() - begin));
    CHECK(index->digests[i] == digest_of(bytes));
  }
  CHECK(index->digests.size() == (size + index_piece_size - 1) / index_piece_size);
  CHECK(read(write(*index)).has_value());
}

TEST_CASE("Every flipped bit and every cut of an index file is noticed",
          "[gzip][index_file][error]") {
  auto const made = testing::gzip_blob({{testing::compressible_bytes(120000, 4), 6, 0, 20000}});
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
  for (std::size_t i = 0; i < file.size(); i += i < 1000 ? 1 : step) {
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

TEST_CASE("Windows of chosen checkpoints are smaller than those of the first ones that fit",
          "[gzip][layer_index]") {
  // Parts that look back, and parts that do not.
  Bytes content;
  for (std::uint32_t i = 0; i < 40; ++i) {
    auto const part = i % 2 == 0 ? testing::compressible_bytes(60'000, i) : Bytes(60'000);
    content.insert(content.end(), part.begin(), part.end());
  }
  auto const made = testing::gzip_blob({{content, 6, 0, 10'000}});
  auto const index = build(made.blob, {BlobEncoding::gzip, 128 << 10});
  REQUIRE(index.has_value());

  std::size_t chosen = 0;
  for (auto const& span : index->spans) chosen += span.packed_window.size();

  CHECK(index->spans.size() > 10);
  CHECK(chosen / index->spans.size() < 500);
}

TEST_CASE("A file of version 1 is refused by its number", "[gzip][index_file][error]") {
  auto const index = build(testing::gzip_blob({{testing::compressible_bytes(1000, 4)}}).blob, {});
  auto file = write(index.value());
  file[8] = std::byte{1};
  auto const opened = read(file);
  REQUIRE_FALSE(opened);
  CHECK(opened.error().code == Errc::unsupported);
  CHECK(opened.error().context.find("version 1") != std::string::npos);
}

TEST_CASE("An index with a digest too many is not written", "[gzip][index_file][error]") {
  auto index = build(testing::gzip_blob({{testing::compressible_bytes(1000, 4)}}).blob, {}).value();
  index.digests.emplace_back();
  auto const ok = write_index_file(index, [](auto) { return true; });
  REQUIRE_FALSE(ok);
  CHECK(ok.error().code == Errc::invalid_argument);
}

TEST_CASE("Blocks that decode to nothing are not kept", "[gzip][layer_index]") {
  constexpr std::array<unsigned char, 10> header{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3};
  constexpr std::array<unsigned char, 6> one_byte{0, 1, 0, 0xfe, 0xff, 'x'};
  constexpr std::array<unsigned char, 5> nothing{0, 0, 0, 0xff, 0xff};
  LayerIndexBuilder<> builder({}, [](auto) -> Result<void> { return {}; });
  REQUIRE(builder.push(std::as_bytes(std::span(header))).has_value());
  REQUIRE(builder.push(std::as_bytes(std::span(one_byte))).has_value());
  Bytes empties;
  for (int i = 0; i < 200'000; ++i) {
    for (auto const byte : nothing) empties.push_back(std::byte{byte});
  }
  auto const most_memory = [] {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss / 1024;  // MiB
  };
  REQUIRE(builder.push(empties).has_value());
  auto const before = most_memory();

  for (int i = 0; i < 32; ++i) REQUIRE(builder.push(empties).has_value());

  if (!is_sanitized) CHECK(most_memory() - before < 16);
}

TEST_CASE("A blob that is no gzip stream gives an error with its offset",
          "[gzip][layer_index][error]") {
  auto const blob = testing::gzip_blob({{testing::compressible_bytes(100000, 5), 6}}).blob;
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

}  // namespace layer_index_builder_test
}  // namespace erofs_oci
