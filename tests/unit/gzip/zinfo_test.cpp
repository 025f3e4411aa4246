// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/zinfo.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>

namespace erofs_oci {
namespace zinfo_test {

constexpr auto bad_number = std::uint64_t(-1);

Bytes write(GzipIndex const& index, std::uint64_t span_size = 0) {
  Bytes file;
  auto const ok = write_zinfo(index, span_size, [&](std::span<std::byte const> piece) {
    file.insert(file.end(), piece.begin(), piece.end());
    return true;
  });
  REQUIRE(ok.has_value());
  return file;
}

Result<GzipIndex> read(Bytes file) {
  return read_zinfo(AnySource(Memory(std::move(file))));
}

// "ababa" as two fixed-Huffman blocks: "ab", then a match of length 3 at distance 2.
Bytes const ababa = [] {
  Bytes blob;
  for (int const b : {0x1f, 0x8b, 8,    0,    0,    0,    0,    0,    0, 0xff, 0x4a, 0x4c,
                      0x02, 0x0c, 0x08, 0x01, 0x94, 0x6f, 0x34, 0xd7, 5, 0,    0,    0}) {
    blob.push_back(std::byte(b));
  }
  return blob;
}();

GzipIndex ababa_index() {
  return {{{10, 0, 0}, {14, 2, 6}},
          [](std::size_t i, std::span<std::byte, gzip_window_size> window) -> Result<void> {
            std::ranges::fill(window, std::byte{0});
            if (i == 1) std::ranges::copy(as_bytes("ab"), window.end() - 2);
            return {};
          },
          false};
}

TEST_CASE("The worked example is written byte for byte", "[gzip][zinfo]") {
  auto const file = write(ababa_index());

  CHECK(file.size() == 65582);
  CHECK(digest_of(file).to_string() ==
        "sha256:85f3e044f91e668025b5c81d3be52690d5e9afadf5d6742a3e15676617715504");
}

TEST_CASE("The worked example decodes, from version 2 and from version 1", "[gzip][zinfo]") {
  auto const version = GENERATE(1, 2);
  auto file = write(ababa_index());
  if (version == 1) file.erase(file.begin() + 12, file.begin() + 12 + zinfo_record_size);

  auto index = read(file);

  REQUIRE(index.has_value());
  CHECK(index->first_is_assumed == (version == 1));
  CHECK(index->checkpoints == ababa_index().checkpoints);
  auto const gzran = Gzran<Memory>::make(Memory(ababa), *index);
  REQUIRE(gzran.has_value());
  REQUIRE(gzran->size() == 5);
  Bytes out(3);
  REQUIRE(gzran->read_at(2, out).value() == 3);
  CHECK(as_text(out) == "aba");
}

TEST_CASE("What is written reads back equal", "[gzip][zinfo][property]") {
  rc::prop("for all blobs", [] {
    auto const size = *rc::gen::inRange<std::size_t>(1, 60000);
    auto const seed = *rc::gen::inRange(0, 255);
    Bytes content(size);
    for (std::size_t i = 0; i < size; ++i)
      content[i] = std::byte((i * i / 7 + std::size_t(seed)) & 0xff);
    auto const made = testing::gzip_blob({{content, 6, 0, 4000}});

    auto const index = read(write(made.index(), 4000));

    RC_ASSERT(index.has_value());
    RC_ASSERT(index->checkpoints == made.checkpoints);
    for (std::size_t i = 0; i < made.windows.size(); ++i) {
      Bytes window(gzip_window_size);
      RC_ASSERT(index->window(i, std::span<std::byte, gzip_window_size>(window)).has_value());
      RC_ASSERT(window == made.windows[i]);
    }
  });
}

TEST_CASE("A file whose size is not what its header asks for is refused", "[gzip][zinfo][error]") {
  auto file = write(ababa_index());

  SECTION("too short for a header") {
    file.resize(GENERATE(0U, 1U, 11U));
  }
  SECTION("cut or longer") {
    file.resize(GENERATE(12U, 13U, 32796U, 32798U, 65581U, 65583U));
  }
  SECTION("no checkpoints") {
    file.resize(12);
    std::ranges::fill(file, std::byte{0});
  }
  SECTION("a count that is right only modulo 2^32") {
    // 32785 is odd, so that some count has any given product modulo 2^32.
    std::uint32_t inverse = 1;
    for (int i = 0; i < 5; ++i) inverse *= 2 - std::uint32_t{32785} * inverse;
    auto const count = static_cast<std::uint32_t>(65582U - 12U) * inverse;
    REQUIRE((count == 2 || count * 32785U + 12U == 65582U));
    store_le<std::uint32_t>(count == 2 ? 0x80000002U : count, std::span(file).first<4>());
  }
  SECTION("a negative count") {
    store_le<std::uint32_t>(0xffffffff, std::span(file).first<4>());
  }

  auto const index = read(file);

  REQUIRE_FALSE(index.has_value());
  CHECK(index.error().code == Errc::corrupt);
  CHECK_THAT(index.error().message(), Catch::Contains("zinfo"));
}

TEST_CASE("Checkpoints that no blob has are refused by name", "[gzip][zinfo][error]") {
  auto index = ababa_index();
  auto& first = index.checkpoints[0];
  auto& second = index.checkpoints[1];
  std::string names = "checkpoint 1";

  SECTION("more than 7 bits") {
    second.bits = 8;
  }
  SECTION("before the blob's second byte") {
    first.in = GENERATE(0U, 1U);
    names = "checkpoint 0";
  }
  SECTION("behind 2^60") {
    second.in = GENERATE((std::uint64_t{1} << 60) + 1, bad_number);
  }
  SECTION("decoded offset beyond 2^63 - 1") {
    second.out = std::uint64_t{1} << 63;
  }
  SECTION("the first not at decoded offset 0") {
    first.out = 1;
    names = "checkpoint 0";
  }
  SECTION("blob positions that do not rise") {
    second = {10, 2, 0};
  }
  SECTION("more than deflate can decode") {
    second.out = 1032 * 5 + 259;
  }
  SECTION("decoded offset that goes back") {
    index.checkpoints.push_back({20, 1, 0});
    names = "checkpoint 2";
  }

  auto const read_back = read(write(index));

  REQUIRE_FALSE(read_back.has_value());
  CHECK(read_back.error().code == Errc::corrupt);
  CHECK_THAT(read_back.error().message(), Catch::Contains(names));
}

}  // namespace zinfo_test
}  // namespace erofs_oci
