// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/ztoc.hpp>  // first: proves that the header stands alone

#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/gzip/scanner.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/ztoc_maker.hpp>

#include "data_path.hpp"

namespace erofs_oci {
namespace ztoc_test {

using testing::encode_ztoc;
using V = testing::FlatValue;

Bytes read_file(std::string const& name) {
  std::ifstream in(test_data("/oci/") + name, std::ios::binary);
  REQUIRE(in.good());
  std::string const text{std::istreambuf_iterator<char>(in), {}};
  return to_bytes(text);
}

/// A blob of several spans, and its ztoc.
struct Layer {
  testing::GzipBlob made;
  Ztoc ztoc;
};

Layer layer(std::uint64_t span_size = 50000, std::size_t size = 300000) {
  auto made =
      testing::gzip_blob({{.content = testing::compressible_bytes(size, 3), .flush_every = 20000}},
                         Bytes(100))
          .spaced(span_size);
  auto ztoc = testing::gzip_ztoc(made.blob, made.content.size(), made.index(), span_size);
  ztoc.files.push_back({"a/b",
                        "reg",
                        512,
                        5,
                        "",
                        0644,
                        1,
                        2,
                        "u",
                        "g",
                        "2020-01-02T03:04:05Z",
                        0,
                        0,
                        {{"SCHILY.xattr.user.x", std::string("\0v", 2)}}});
  ztoc.files.push_back({"a/c", "char", 1536, 0, "", 0600, 4000000000, 7, "", "", "", 5, 6, {}});
  return {std::move(made), std::move(ztoc)};
}

/// The message without the field of that number.
std::vector<V>& compression(V& root) {
  return root.parts[5].parts;
}

TEST_CASE("A ztoc comes back as it was written", "[gzip][ztoc]") {
  auto const ztoc = layer().ztoc;

  auto bytes = encode_ztoc(ztoc);
  CHECK(parse_ztoc(bytes) == ztoc);

  // SOCI's list of files to prefetch
  auto const more = std::string("---SOCI-PREFETCH---[{\"path\":\"a\"}]");
  bytes.insert(bytes.end(), as_bytes(more).begin(), as_bytes(more).end());
  CHECK(parse_ztoc(bytes) == ztoc);

  auto const plain = testing::plain_ztoc(testing::compressible_bytes(1000, 1), 300);
  CHECK(parse_ztoc(encode_ztoc(plain)) == plain);
}

TEST_CASE("A ztoc that flatc encoded is read", "[gzip][ztoc][fixture]") {
  auto const blob = read_file("basic.tar.gz");

  auto const ztoc = parse_ztoc(read_file("basic.ztoc"));

  if (!ztoc) FAIL(ztoc.error().message());
  CHECK(ztoc->version == "0.9");
  CHECK(ztoc->build_tool == "make_ztoc.py");
  CHECK(ztoc->blob_size == blob.size());
  CHECK(ztoc->encoding == BlobEncoding::gzip);
  CHECK(ztoc->span_digests.size() == 1);
  CHECK(ztoc->checkpoints == read_file("gz-basic.zinfo"));
  CHECK(ztoc->files.size() > 10);
  CHECK(ztoc_spans(*ztoc, blob.size()).has_value());
}

TEST_CASE("The zinfo in a ztoc is what a scan of the blob finds", "[gzip][ztoc]") {
  constexpr std::uint64_t span_size = 50000;
  auto const [made, ztoc] = layer(span_size);
  std::vector<Checkpoint> scanned;
  std::vector<Bytes> windows;
  GzipScanEvents events;
  events.decoded = [](auto) -> Result<void> { return {}; };
  events.compressed = [](auto) {};
  events.checkpoint = [&](Checkpoint const& point, auto window) {
    scanned.push_back(point);
    windows.push_back(to_bytes(window));
  };
  GzipScanner<> scanner(span_size, events);
  REQUIRE(scanner.push(made.blob));
  REQUIRE(scanner.finish());

  auto const spans = ztoc_spans(*parse_ztoc(encode_ztoc(ztoc)), made.blob.size());

  REQUIRE(spans.has_value());
  REQUIRE(spans->index.checkpoints.size() > 3);
  CHECK(spans->index.checkpoints == scanned);
  for (std::size_t i = 0; i < scanned.size(); ++i) {
    Bytes window(gzip_window_size);
    REQUIRE(spans->index.window(i, std::span(window).first<gzip_window_size>()));
    CHECK(window == windows[i]);
  }
}

using Checked = Verified<Memory, Sha256>;

Result<Bytes> read_all(ZtocSpans spans, Bytes blob) {
  auto checked = Checked::make(Memory(std::move(blob)), spans.chunks);
  REQUIRE(checked.has_value());
  Bytes out(static_cast<std::size_t>(spans.decoded_size));
  if (spans.encoding == BlobEncoding::plain) {
    if (auto const ok = read_exact(*checked, 0, out); !ok) return fail(ok.error());
    return out;
  }
  auto const gzran = Gzran<Checked>::make(*std::move(checked), std::move(spans.index),
                                          {.size = spans.decoded_size});
  if (!gzran) return fail(gzran.error());
  if (auto const ok = read_exact(*gzran, 0, out); !ok) return fail(ok.error());
  return out;
}

TEST_CASE("A blob read through its ztoc is its content", "[gzip][ztoc]") {
  auto const [made, ztoc] = layer();
  CHECK(read_all(*ztoc_spans(ztoc, made.blob.size()), made.blob) == made.content);

  auto const plain = testing::compressible_bytes(100'000, 2);
  for (std::uint64_t const span : {1U, 33'333U, 100'000U, 4'000'000U}) {
    if (span == 1) continue;
    auto const spans = ztoc_spans(testing::plain_ztoc(plain, span), plain.size());
    REQUIRE(spans.has_value());
    CHECK(read_all(*spans, plain) == plain);
  }
}

TEST_CASE("The tar may end before the decoded stream", "[gzip][ztoc]") {
  auto [made, ztoc] = layer();
  ztoc.tar_size -= 10'000;  // still in the last span

  auto const spans = ztoc_spans(ztoc, made.blob.size());

  REQUIRE(spans.has_value());
  CHECK(spans->decoded_size == ztoc.tar_size);
  auto const start = Bytes(made.content.begin(), made.content.end() - 10'000);
  CHECK(read_all(*spans, made.blob) == start);
}

TEST_CASE("A checkpoint in the padding behind the tar can be reached", "[gzip][ztoc]") {
  auto [made, ztoc] = layer();
  ztoc.tar_size = made.checkpoints.back().out - 1;

  auto const spans = ztoc_spans(ztoc, made.blob.size());

  REQUIRE(spans.has_value());
  CHECK(spans->decoded_size == made.checkpoints.back().out);
  CHECK(read_all(*spans, made.blob).has_value());
}

TEST_CASE("A flipped bit of the blob is noticed by its span's digest", "[gzip][ztoc][property]") {
  auto const [made, ztoc] = layer();
  auto const spans = *ztoc_spans(ztoc, made.blob.size());
  rc::prop("for all bits behind the gzip header", [&] {
    auto blob = made.blob;
    auto const at = *rc::gen::inRange<std::size_t>(10, blob.size());
    blob[at] ^= std::byte(1 << *rc::gen::inRange(0, 8));

    auto const bytes = read_all(spans, blob);

    RC_ASSERT(!bytes.has_value());
    RC_ASSERT(bytes.error().code == Errc::digest_mismatch);
  });
}

TEST_CASE("Checkpoints of plain layers come in two forms", "[gzip][ztoc]") {
  auto const blob = testing::compressible_bytes(1000, 1);
  auto ztoc = testing::plain_ztoc(blob, 300);
  ztoc.checkpoints = testing::FlatWriter::write(
      V::table({V::of(std::int32_t{2}), V::of(std::int64_t{300}), V::of(std::int64_t{1000})}));

  auto const spans = ztoc_spans(ztoc, 1000);

  REQUIRE(spans.has_value());
  REQUIRE(spans->chunks.size() == 4);
  CHECK(spans->chunks[3].begin == 900);
  CHECK(spans->chunks[3].end == 1000);
}

TEST_CASE("What is no ztoc of ours is refused", "[gzip][ztoc][error]") {
  struct Case {
    std::string name;
    std::function<void(V&)> change;
    Errc code;
  };
  auto const cases = std::vector<Case>{
      {"version", [](V& v) { v.parts[0] = V::text("1.0"); }, Errc::unsupported},
      {"no version", [](V& v) { v.parts[0] = {}; }, Errc::unsupported},
      {"blob size", [](V& v) { v.parts[2] = V::of(std::int64_t{-1}); }, Errc::corrupt},
      {"tar size", [](V& v) { v.parts[3] = V::of(std::int64_t{-1}); }, Errc::corrupt},
      {"no compression info", [](V& v) { v.parts[5] = {}; }, Errc::corrupt},
      {"zstd", [](V& v) { compression(v)[0] = V::of(std::int8_t{3}); }, Errc::unsupported},
      {"no algorithm", [](V& v) { compression(v)[0] = V::of(std::int8_t{0}); }, Errc::unsupported},
      {"last span", [](V& v) { compression(v)[1].number += 1; }, Errc::corrupt},
      {"last span of 2^31", [](V& v) { compression(v)[1] = V::of(std::int32_t{-1}); },
       Errc::corrupt},
      {"a digest less", [](V& v) { compression(v)[2].parts.pop_back(); }, Errc::corrupt},
      {"no digests", [](V& v) { compression(v)[2] = {}; }, Errc::corrupt},
      {"not a digest", [](V& v) { compression(v)[2].parts[1] = V::text("sha256:00"); },
       Errc::invalid_argument},
      {"offset", [](V& v) { v.parts[4].parts[0].parts[0].parts[2] = V::of(std::int64_t{-512}); },
       Errc::corrupt},
      {"size", [](V& v) { v.parts[4].parts[0].parts[1].parts[3] = V::of(std::int64_t{-1}); },
       Errc::corrupt},
      {"files of nothing",
       [](V& v) { v.parts[4].parts[0] = V::list(std::vector<V>(100'000, V::table({}))); },
       Errc::corrupt},
  };
  for (auto const& [name, change, code] : cases) {
    INFO(name);
    auto tree = testing::flat_ztoc(layer().ztoc);
    change(tree);

    auto const ztoc = parse_ztoc(testing::FlatWriter::write(tree));

    REQUIRE_FALSE(ztoc.has_value());
    CHECK(ztoc.error().code == code);
  }
  auto tree = testing::flat_ztoc(layer().ztoc);
  tree.parts[4] = {};
  CHECK(parse_ztoc(testing::FlatWriter::write(tree))->files.empty());
}

TEST_CASE("A ztoc whose parts contradict each other, or the layer, is refused",
          "[gzip][ztoc][error]") {
  auto const [made, good] = layer();
  auto const size = made.blob.size();
  struct Case {
    std::string name;
    std::function<void(Ztoc&)> change;
    Errc code;
  };
  auto const record = [](std::size_t i) { return zinfo_header_size + i * zinfo_record_size; };
  auto const put = [](Bytes& bytes, std::size_t at, std::uint64_t value) {
    store_le(value, std::span(bytes).subspan(at).first<8>());
  };
  auto const cases = std::vector<Case>{
      {"size", [](Ztoc& z) { ++z.blob_size; }, Errc::mismatch},
      {"a digest less", [](Ztoc& z) { z.span_digests.pop_back(); }, Errc::corrupt},
      {"zinfo cut", [](Ztoc& z) { z.checkpoints.pop_back(); }, Errc::corrupt},
      {"no zinfo", [](Ztoc& z) { z.checkpoints.clear(); }, Errc::corrupt},
      {"zinfo version 1",
       [&](Ztoc& z) {
         auto const at = z.checkpoints.begin() + zinfo_header_size;
         z.checkpoints.erase(at, at + zinfo_record_size);
       },
       Errc::unsupported},
      {"last span behind the blob's end",
       [&](Ztoc& z) { put(z.checkpoints, record(z.span_digests.size() - 1), size + 1); },
       Errc::corrupt},
      {"last span at the blob's end",
       [&](Ztoc& z) {
         put(z.checkpoints, record(z.span_digests.size() - 1), size);
         z.checkpoints[record(z.span_digests.size() - 1) + 16] = std::byte{0};
       },
       Errc::corrupt},
      {"a tar larger than the spans can hold", [](Ztoc& z) { z.tar_size = 1ULL << 62; },
       Errc::corrupt},
  };
  for (auto const& [name, change, code] : cases) {
    INFO(name);
    auto ztoc = good;
    change(ztoc);

    auto const spans = ztoc_spans(ztoc, size);

    REQUIRE_FALSE(spans.has_value());
    CHECK(spans.error().code == code);
  }
}

TEST_CASE("A plain ztoc whose numbers contradict each other is refused", "[gzip][ztoc][error]") {
  auto const good = testing::plain_ztoc(testing::compressible_bytes(1000, 1), 300);
  auto const checkpoints = [](std::int64_t span, std::int64_t size) {
    return [=](Ztoc& z) {
      auto const raw = std::span(z.checkpoints);
      store_le(static_cast<std::uint64_t>(span), raw.subspan<4, 8>());
      store_le(static_cast<std::uint64_t>(size), raw.subspan<12, 8>());
    };
  };
  auto const changes = std::vector<std::function<void(Ztoc&)>>{
      checkpoints(0, 1000),
      checkpoints(-1, 1000),
      checkpoints(300, 0),
      checkpoints(300, 1001),
      checkpoints(250 - 1, 1000),
      checkpoints(334, 1000),
      [](Ztoc& z) { z.tar_size = 1001; },
      [](Ztoc& z) { z.checkpoints.clear(); },
      [](Ztoc& z) { z.checkpoints.pop_back(); },
  };
  REQUIRE(ztoc_spans(good, 1000).has_value());
  for (auto const& change : changes) {
    auto ztoc = good;
    change(ztoc);

    auto const spans = ztoc_spans(ztoc, 1000);

    REQUIRE_FALSE(spans.has_value());
    CHECK(spans.error().code == Errc::corrupt);
  }
}

/// A small one: one span, its window made short.
Bytes small_ztoc() {
  auto ztoc = layer(1 << 20, 2000).ztoc;
  ztoc.checkpoints.resize(50);
  return encode_ztoc(ztoc);
}

TEST_CASE("A ztoc cut anywhere is an error or says the same", "[gzip][ztoc][error]") {
  auto const whole = small_ztoc();
  auto const expected = *parse_ztoc(whole);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    auto const cut = parse_ztoc(std::span(whole).first(n));
    if (cut) CHECK(*cut == expected);
    if (n + 100 < whole.size()) CHECK_FALSE(cut.has_value());
  }
}

TEST_CASE("A ztoc with any bit flipped is read or refused", "[gzip][ztoc][error]") {
  auto bytes = small_ztoc();
  std::size_t refused = 0;
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    auto const mask = std::byte(1 << bit % 8);
    bytes[bit / 8] ^= mask;
    auto const ztoc = parse_ztoc(bytes);
    if (!ztoc) ++refused;
    if (ztoc) (void)ztoc_spans(*ztoc, ztoc->blob_size);  // may fail; must not crash
    bytes[bit / 8] ^= mask;
  }
  CHECK(refused > bytes.size());
}

}  // namespace ztoc_test
}  // namespace erofs_oci
