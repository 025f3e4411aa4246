// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/find_checkpoints.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace find_checkpoints_test {

constexpr std::uint64_t content_size = 1'500'000;
constexpr std::uint64_t piece = 16 * 1024;

testing::GzipBlob const& layer() {
  static auto const made =
      testing::gzip_blob({{testing::compressible_bytes(content_size, 5), 6, 0, 20'000}})
          .spaced(400'000);
  return made;
}

// What an index says of the layer, with small pieces.
LayerIndex index_of(testing::GzipBlob const& made) {
  LayerIndex index;
  index.blob_size = made.blob.size();
  index.piece_size = piece;
  for (auto const& point : made.checkpoints) index.spans.push_back({point, {}});
  for (std::size_t i = 0; i < index.spans.size(); ++i) {
    auto const end = index.blob_end(i);
    for (auto at = index.spans[i].start.first_byte(); at < end; at += piece) {
      auto const size = static_cast<std::size_t>(std::min(piece, end - at));
      index.digests.push_back(
          digest_of(std::span(made.blob).subspan(static_cast<std::size_t>(at), size)));
    }
  }
  return index;
}

std::vector<ByteRange> any_ranges() {
  auto const count = *rc::gen::inRange(1, 8);
  std::vector<ByteRange> ranges;
  std::uint64_t at = 0;
  for (int i = 0; i < count; ++i) {
    auto const begin = at + *rc::gen::inRange<std::uint64_t>(0, 400'000);
    auto const end = begin + *rc::gen::element<std::uint64_t>(1, 4096, 50'000, 300'000);
    if (end > content_size) break;
    ranges.push_back({begin, end});
    at = end + 1;
  }
  return ranges;
}

// A remote blob of which only some bytes can be had.
class Partial {
 public:
  Partial(Bytes const& blob, std::vector<ByteRange> there)
      : blob_(blob), there_(std::move(there)) {}

  [[nodiscard]] std::uint64_t size() const noexcept { return blob_.size(); }
  [[nodiscard]] bool is_remote() const { return true; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const end = offset + readable(size(), offset, out.size());
    for (auto at = offset; at < end;) {
      auto const found = std::ranges::find_if(
          there_, [&](ByteRange const& one) { return one.begin <= at && at < one.end; });
      if (found == there_.end()) return fail(Errc::unavailable, std::to_string(at));
      at = found->end;
    }
    return Memory(blob_).read_at(offset, out);
  }

 private:
  Bytes blob_;
  std::vector<ByteRange> there_;
};

Result<Gzran<AnySource>> open(AnySource blob, GzipIndex index, std::uint64_t size) {
  GzranOptions options;
  options.size = size;
  options.granule = piece;
  options.fetch = {.first = 0, .most = 0};
  options.read_ahead = 0;
  return Gzran<AnySource>::make(std::move(blob), std::move(index), options);
}

// What checking the ranges takes: of the piece in which one begins, the rest if that has a digest.
std::vector<ByteRange> checked_bytes(std::vector<FoundCheckpoints::Needed> const& needed,
                                     std::vector<VerifiedChunk> const& chunks) {
  auto const chunk_of = [&](std::uint64_t at) {
    return std::prev(std::ranges::upper_bound(chunks, at, {}, &VerifiedChunk::begin));
  };
  std::vector<ByteRange> taken;
  for (auto const& [number, range] : needed) {
    taken.push_back({chunk_of(range.begin)->begin, chunk_of(range.end - 1)->end});
  }
  return taken;
}

// The checkpoints found, with the digests of rests of pieces or without.
ExtraCheckpoints extra_of(FoundCheckpoints const& found, Bytes const& blob, bool with_rests) {
  ExtraCheckpoints extra;
  for (std::size_t i = 0; i < found.points.size(); ++i) {
    auto point = found.points[i];
    auto const begin = static_cast<std::size_t>(point.start.first_byte());
    auto const size = static_cast<std::size_t>(found.piece_ends[i]) - begin;
    if (with_rests) point.rest = digest_of(std::span(blob).subspan(begin, size));
    RC_ASSERT(extra.add(std::move(point)));
  }
  return extra;
}

TEST_CASE("Ranges can be read of what they are said to need, by the checkpoints found",
          "[gzip][find][property]") {
  rc::prop("for all ranges", [] {
    auto const& made = layer();
    auto const ranges = any_ranges();
    FindOptions options;
    options.worth = *rc::gen::element<std::uint64_t>(1, 10'000, 64 * 1024);
    options.leeway = *rc::gen::element<std::uint64_t>(0, 20'000);
    options.piece = piece;

    auto const found = find_checkpoints(Memory(made.blob), made.index(), ranges, options);

    RC_ASSERT(found.has_value());
    RC_ASSERT(found->piece_ends.size() == found->points.size());
    auto const extra = extra_of(*found, made.blob, *rc::gen::arbitrary<bool>());
    auto const merged = add_checkpoints(made.index(), extra);
    RC_ASSERT(merged.checkpoints.size() == made.checkpoints.size() + found->points.size());

    auto const chunks = add_rests(index_of(made).chunks(), extra);
    auto checked = Verified<Partial, Sha256>::make(
        Partial(made.blob, checked_bytes(found->needed, chunks)), chunks);
    RC_ASSERT(checked.has_value());
    auto const gzran = open(AnySource(*std::move(checked)), merged, content_size);
    RC_ASSERT(gzran.has_value());
    std::map<std::uint64_t, std::uint64_t> ahead;  // the end of each begin
    for (auto const& [number, bytes] : found->needed) {
      ahead[bytes.begin] = std::max(ahead[bytes.begin], bytes.end);
    }
    for (auto const& [begin, end] : ahead) RC_ASSERT(gzran->fetch(begin, end, {}).has_value());
    for (auto const& range : ranges) {
      Bytes out(static_cast<std::size_t>(range.end - range.begin));
      auto const n = gzran->read_at(range.begin, out);
      if (!n) RC_FAIL(n.error().message());
      RC_ASSERT(std::ranges::equal(
          out, std::span(made.content).subspan(static_cast<std::size_t>(range.begin), out.size())));
    }
  });
}

TEST_CASE("A blob with checkpoints that were found obeys the laws", "[gzip][find][property]") {
  static auto const made =
      testing::gzip_blob({{testing::compressible_bytes(120'000, 6), 6, 0, 5000}}).spaced(40'000);
  rc::prop("for all ranges", [] {
    auto const begin = *rc::gen::inRange<std::uint64_t>(0, 110'000);
    std::vector<ByteRange> const ranges{{begin, begin + 5000}};
    FindOptions options;
    options.worth = 1000;
    options.piece = piece;
    auto const found = find_checkpoints(Memory(made.blob), made.index(), ranges, options);
    RC_ASSERT(found.has_value());
    auto const extra = extra_of(*found, made.blob, true);
    auto checked = Verified<Memory, Sha256>::make(Memory(made.blob),
                                                  add_rests(index_of(made).chunks(), extra));
    RC_ASSERT(checked.has_value());
    auto gzran = open(AnySource(*std::move(checked)), add_checkpoints(made.index(), extra),
                      made.content.size());
    RC_ASSERT(gzran.has_value());
    testing::obeys_laws(AnySource(*std::move(gzran)), made.content);
  });
}

TEST_CASE("A read far behind a checkpoint gets one of its own", "[gzip][find]") {
  auto const& made = layer();
  auto const out = made.checkpoints[1].out;
  std::vector<ByteRange> const ranges{{out + 1000, out + 2000}, {out + 300'000, out + 304'096}};

  auto const found = find_checkpoints(Memory(made.blob), made.index(), ranges);

  REQUIRE(found.has_value());
  REQUIRE(found->points.size() == 1);
  auto const& point = found->points[0].start;
  CHECK(point.out <= out + 300'000);
  CHECK(point.out > out + 240'000);
  REQUIRE(found->needed.size() == 2);
  CHECK(found->needed[0].blob.begin == made.checkpoints[1].first_byte());
  CHECK(found->needed[1].blob.begin == point.first_byte());
  CHECK(found->needed[1].blob.end < point.in + 64 * 1024);
}

TEST_CASE("Bytes that cannot be had end the search", "[gzip][find][error]") {
  auto const& made = layer();
  std::vector<ByteRange> const ranges{{1000, 2000}, {900'000, 910'000}};
  auto const found = find_checkpoints(Partial(made.blob, {{0, 300'000}}), made.index(), ranges);
  REQUIRE(!found);
  CHECK(found.error().code == Errc::unavailable);
}

TEST_CASE("Of a span that was cut off another one, no more is read than the pieces it lies in",
          "[gzip][find]") {
  auto const& made = layer();
  auto const begin = made.checkpoints[1].first_byte();
  auto const far = made.checkpoints[1].out + 300'000;
  std::vector<ByteRange> const first{{far, far + 100}};
  auto const found = find_checkpoints(Memory(made.blob), made.index(), first);
  REQUIRE(found.has_value());
  REQUIRE(found->points.size() == 1);
  ExtraCheckpoints extra;
  REQUIRE(extra.add(found->points[0]));
  auto const into = found->needed[0].blob.begin - begin;
  auto const end = found->needed[0].blob.end - begin;
  REQUIRE(into % index_piece_size != 0);
  std::vector<ByteRange> const there{
      {begin + into / index_piece_size * index_piece_size,
       begin + (end + index_piece_size - 1) / index_piece_size * index_piece_size}};

  auto const again =
      find_checkpoints(Partial(made.blob, there), add_checkpoints(made.index(), extra), first);

  REQUIRE(again.has_value());
  CHECK(again->points.empty());
  REQUIRE(again->needed.size() == 1);
  CHECK(again->needed[0].blob == found->needed[0].blob);
}

TEST_CASE("In a span of several members nothing is found", "[gzip][find]") {
  auto const made = testing::gzip_blob({{testing::compressible_bytes(200'000, 1), 6, 0, 9000},
                                        {testing::compressible_bytes(400'000, 2), 6, 0, 9000}})
                        .spaced(std::uint64_t{1} << 40);
  std::vector<ByteRange> const ranges{{500'000, 510'000}};
  auto const found = find_checkpoints(Memory(made.blob), made.index(), ranges);
  REQUIRE(found.has_value());
  CHECK(found->points.empty());
  REQUIRE(found->needed.size() == 1);
  CHECK(found->needed[0].blob.begin == made.checkpoints[0].first_byte());
  CHECK(found->needed[0].blob.end <= made.blob.size());
}

}  // namespace find_checkpoints_test
}  // namespace erofs_oci
