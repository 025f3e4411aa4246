// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/decoder.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <tuple>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>

namespace erofs_oci {
namespace decoder_test {

// Decodes in pieces of the given sizes; yields the bytes, and whether the input ended well.
template <class I>
Result<std::pair<Bytes, bool>> decode(Bytes const& blob, std::size_t in_step,
                                      std::size_t out_step) {
  GzipDecoder<I> decoder;
  Bytes content;
  Bytes out(out_step);
  std::size_t at = 0;
  while (true) {
    auto const in = std::span(blob).subspan(at, std::min(in_step, blob.size() - at));
    auto const step = decoder.decode(in, out);
    if (!step) return fail(step.error());
    at += step->consumed;
    content.insert(content.end(), out.begin(),
                   out.begin() + static_cast<std::ptrdiff_t>(step->produced));
    if (at == blob.size() && step->produced == 0) return std::pair(content, decoder.may_end());
  }
}

Bytes any_content() {
  auto const size = *rc::gen::element<std::size_t>(0, 1, 10, 3000, 70000);
  auto const seed = *rc::gen::inRange<std::size_t>(0, 50);
  Bytes content(size);
  for (std::size_t i = 0; i < size; ++i) content[i] = std::byte((i * (i + seed) / 11) & 0xff);
  return content;
}

TEMPLATE_TEST_CASE("Members decode, whatever the pieces", "[gzip][decoder][property]", ZlibInflater,
                   DefaultInflater) {
  rc::prop("for all members, header fields and piece sizes", [] {
    std::vector<testing::MemberRecipe> members;
    auto const count = *rc::gen::inRange(1, 4);
    for (int i = 0; i < count; ++i) {
      testing::MemberRecipe recipe{any_content()};
      recipe.level = *rc::gen::inRange(0, 10);
      recipe.name = *rc::gen::element<std::string>("", "x");
      recipe.extra = Bytes(*rc::gen::element<std::size_t>(0, 1, 600));
      recipe.header_crc = *rc::gen::arbitrary<bool>();
      members.push_back(recipe);
    }
    auto const trailing = *rc::gen::element<Bytes>(Bytes{}, Bytes(1024), to_bytes("x"));
    auto const made = testing::gzip_blob(members, trailing);
    auto const in_step = *rc::gen::element<std::size_t>(1, 2, 7, 100, 1 << 20);
    auto const out_step = *rc::gen::element<std::size_t>(1, 13, 4096, 1 << 20);

    auto const got = decode<TestType>(made.blob, in_step, out_step);

    if (!got) RC_FAIL(got.error().message());
    RC_ASSERT(got->first == made.content);
    RC_ASSERT(got->second);
  });
}

TEMPLATE_TEST_CASE("A cut member never looks whole", "[gzip][decoder][error]", ZlibInflater,
                   DefaultInflater) {
  auto const made = testing::gzip_blob({{to_bytes("hello, hello, hello"), 6, 0, 0, "name"}});
  for (std::size_t size = 0; size < made.blob.size(); ++size) {
    auto const got = decode<TestType>(
        Bytes(made.blob.begin(), made.blob.begin() + static_cast<std::ptrdiff_t>(size)), 100, 100);
    CAPTURE(size);
    CHECK((!got || !got->second));
  }
}

TEMPLATE_TEST_CASE("A wrong CRC, length or byte is noticed", "[gzip][decoder][error]", ZlibInflater,
                   DefaultInflater) {
  auto const made = testing::gzip_blob({{to_bytes("some content, some content"), 6}});
  for (std::size_t i = 10; i < made.blob.size(); ++i) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      auto blob = made.blob;
      blob[i] ^= std::byte(1U << bit);
      auto const got = decode<TestType>(blob, 100, 100);
      CAPTURE(i, bit);
      // A flip in padding bits behind the last block changes nothing.
      CHECK((!got || !got->second || got->first == made.content));
    }
  }
}

TEST_CASE("What is no gzip stream is refused", "[gzip][decoder][error]") {
  for (auto const& bytes :
       {to_bytes("PK\x03\x04"), to_bytes("\x1f\x8b\x07 bad method"),
        to_bytes("\x28\xb5\x2f\xfd zstd"), to_bytes("\x1f\x8b\x08\xe0 reserved flags")}) {
    auto const got = decode<DefaultInflater>(bytes, 100, 100);
    REQUIRE_FALSE(got.has_value());
    CHECK(got.error().code == Errc::corrupt);
  }
}

}  // namespace decoder_test
}  // namespace erofs_oci
