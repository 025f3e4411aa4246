// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/fetch_policy.hpp>  // first: proves that the header stands alone

#include <cstddef>
#include <deque>
#include <random>
#include <utility>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace fetch_policy_test {

struct Layer {
  GzipIndex index;
  std::uint64_t blob_size = 0;
  std::uint64_t decoded_size = 0;

  [[nodiscard]] SpanMap map(std::uint64_t granule) const {
    return {&index, blob_size, decoded_size, granule};
  }
};

Layer any_layer() {
  Layer layer;
  auto const spans = *rc::gen::inRange(1, 20);
  std::uint64_t in = 10;
  std::uint64_t out = 0;
  for (int i = 0; i < spans; ++i) {
    auto const bits = static_cast<std::uint8_t>(i == 0 ? 0 : *rc::gen::inRange(0, 8));
    layer.index.checkpoints.push_back({in, out, bits});
    in += *rc::gen::element<std::uint64_t>(1, 100, 65536, 300'000, 2'000'000);
    out += *rc::gen::element<std::uint64_t>(0, 100, 65536, 1'000'000, 1'500'000);
  }
  layer.blob_size = in;
  layer.decoded_size = out;
  return layer;
}

TEST_CASE("A range is what is needed and no more than was asked beyond",
          "[gzip][fetch][property]") {
  rc::prop("for all layers, needs and spans that are there", [] {
    auto const layer = any_layer();
    auto const pieces = *rc::gen::element<std::uint64_t>(0, 1, 4096, 65536);
    auto const whole_spans = *rc::gen::arbitrary<bool>();
    auto const granule = whole_spans ? 0 : pieces;  // between two of which the range ends
    auto const map = layer.map(pieces);
    auto const count = layer.index.checkpoints.size();
    auto const span = *rc::gen::inRange<std::size_t>(0, count);
    auto const come = *rc::gen::inRange<std::uint64_t>(0, map.end(span) - map.begin(span));
    auto const begin = map.begin(span) + (pieces == 0 ? 0 : come / pieces * pieces);
    auto const out =
        *rc::gen::inRange<std::uint64_t>(layer.index.checkpoints[span].out, layer.decoded_size + 1);
    auto const beyond = *rc::gen::element<std::uint64_t>(0, 1000, 512 * 1024, 8 << 20);
    auto const there = *rc::gen::container<std::vector<bool>>(count, rc::gen::arbitrary<bool>());

    auto reached = span;
    auto const end = fetch_end(map, {span, begin, out, beyond, whole_spans}, [&](std::size_t next) {
      RC_ASSERT(next == ++reached);
      return !there[next];
    });

    RC_ASSERT(end > begin);
    RC_ASSERT(end <= layer.blob_size);
    auto const last = std::max(span, layer.index.span_of(out == 0 ? 0 : out - 1));
    auto const needed = map.needed(last, out);
    // Everything needed, unless a span on the way is there.
    bool blocked = false;
    for (auto i = span + 1; i <= last; ++i) blocked = blocked || there[i];
    if (!blocked) RC_ASSERT(end >= std::min(needed, layer.blob_size));
    // No more than that, but for what is checked together.
    auto const whole = granule == 0 ? map.end(last) - map.begin(last) : granule;
    RC_ASSERT(end <= std::max(needed, begin + 1) + std::max(beyond, whole));
    if (granule > 0 && beyond == 0) RC_ASSERT(end < std::max(needed, begin + 1) + granule);
    // Between two granules.
    auto in = span;
    while (in + 1 < count && map.end(in) < end) ++in;
    bool const at_end = end == map.end(in);
    RC_ASSERT(at_end || (granule > 0 && (end - map.begin(in)) % granule == 0));
    for (auto i = span + 1; i <= in; ++i) RC_ASSERT(!there[i]);
  });
}

TEST_CASE("A span is not fetched for the one byte that it shares with the one before",
          "[gzip][fetch]") {
  Layer layer;
  layer.index.checkpoints = {{10, 0, 0}, {1010, 1000, 3}};
  layer.blob_size = 2'000'000;
  layer.decoded_size = 3'000'000;

  for (auto const granule : {0U, 1U, 65536U}) {
    auto const end =
        fetch_end(layer.map(granule), {0, 10, 1000, 0}, [](std::size_t) { return true; });
    CHECK(end == 1010);
  }
}

TEST_CASE("The first decoded byte of a span needs a byte of it, the last one all",
          "[gzip][fetch]") {
  Layer layer;
  layer.index.checkpoints = {{10, 0, 0}, {1010, 5000, 3}};
  layer.blob_size = 2000;
  layer.decoded_size = 9000;
  auto const map = layer.map(1);

  CHECK(map.needed(0, 0) == 10);
  CHECK(map.needed(0, 1) == 11);
  CHECK(map.needed(0, 5000) == 1010);
  CHECK(map.needed(1, 5000) == 1009);  // which begins within byte 1009
  CHECK(map.needed(1, 5001) == 1010);
  CHECK(map.needed(1, 9000) == 2000);
}

TEST_CASE("Granules are counted, and end, with the span of the index", "[gzip][fetch]") {
  Layer layer;
  layer.index.checkpoints = {{10, 0, 0}, {500, 2000, 0}, {1000, 4000, 0}};
  layer.index.pieces_of = {0, 0, 2};  // the second one was cut off the first
  layer.blob_size = 1900;
  auto const map = layer.map(400);

  CHECK(map.granule_end(0, 10) == 410);
  CHECK(map.granule_end(0, 409) == 410);
  CHECK(map.granule_end(0, 410) == 810);
  CHECK(map.granule_end(1, 500) == 810);
  CHECK(map.granule_end(1, 810) == 1000);
  CHECK(map.granule_end(2, 1000) == 1400);
  CHECK(map.granule_end(2, 1899) == 1900);
  CHECK(layer.map(0).granule_end(1, 500) == 1000);
}

TEST_CASE("A range ends with the granule that holds the last byte needed", "[gzip][fetch]") {
  Layer layer;
  layer.index.checkpoints = {{10, 0, 0}};
  layer.blob_size = 10 + 1024;
  layer.decoded_size = 1024;
  auto const map = layer.map(128);
  auto const end_of = [&](std::uint64_t out) {
    return fetch_end(map, {0, 10, out, 0}, [](std::size_t) { return true; });
  };

  REQUIRE(map.needed(0, 127) == 10 + 128);
  CHECK(end_of(126) == 10 + 128);
  CHECK(end_of(127) == 10 + 128);
  CHECK(end_of(128) == 10 + 256);
}

// A layer of spans of 1 MiB, each of which deflate has made a third as large.
Layer even_layer(std::uint64_t mebibytes) {
  Layer layer;
  layer.blob_size = mebibytes << 20;
  layer.decoded_size = 3 * layer.blob_size;
  for (std::uint64_t out = 0; out < layer.decoded_size; out += 1 << 20) {
    layer.index.checkpoints.push_back({out / 3 + 2, out, 0});
  }
  return layer;
}

// What reads of a layer have fetched, span by span, as Gzran does it.
class Fetches {
 public:
  Fetches(Layer const& layer, FetchPolicy& policy) : layer_(layer), policy_(policy) {
    for (std::size_t i = 0; i < layer.index.checkpoints.size(); ++i) come_.push_back(map_.begin(i));
  }

  void read(std::uint64_t begin, std::uint64_t end, std::uint64_t under_way) {
    auto const lacks = !lacking(begin, end).empty();
    auto const more = policy_.read(begin, end, lacks, under_way);
    if (!lacks) return;
    for (auto const span : lacking(begin - more.before, end)) fetch(span, end, more);
  }

  [[nodiscard]] std::uint64_t requests() const { return requests_; }

 private:
  [[nodiscard]] std::vector<std::size_t> lacking(std::uint64_t begin, std::uint64_t end) const {
    std::vector<std::size_t> spans;
    for (auto i = layer_.index.span_of(begin); i <= layer_.index.span_of(end - 1); ++i) {
      if (come_[i] < map_.needed(i, end)) spans.push_back(i);
    }
    return spans;
  }

  void fetch(std::size_t span, std::uint64_t out_end, FetchMore const& more) {
    if (come_[span] >= map_.needed(span, out_end)) return;  // by the fetch for the span before
    ++requests_;
    auto const free = [&](std::size_t next) { return come_[next] == map_.begin(next); };
    auto const end =
        fetch_end(map_, {span, come_[span], out_end, more.beyond, more.whole_spans}, free);
    for (; span < come_.size() && map_.begin(span) < end; ++span) {
      come_[span] = std::max(come_[span], std::min(end, map_.end(span)));
    }
  }

  Layer const& layer_;
  FetchPolicy& policy_;
  SpanMap map_ = layer_.map(32768);
  std::vector<std::uint64_t> come_;  // up to where in the blob, of each span
  std::uint64_t requests_ = 0;
};

TEST_CASE("A layer in sequence takes a request for 4 MiB of it", "[gzip][fetch]") {
  auto const mebibytes = GENERATE(32U, 64U, 500U);
  auto const layer = even_layer(mebibytes);
  FetchPolicy policy({});
  Fetches fetches(layer, policy);

  for (std::uint64_t at = 0; at < layer.decoded_size; at += 128 * 1024) {
    fetches.read(at, std::min<std::uint64_t>(at + 128 * 1024, layer.decoded_size), 1);
  }

  CHECK(fetches.requests() <= mebibytes / 4);
}

TEST_CASE("So it does for a reader that has several reads under way", "[gzip][fetch][property]") {
  rc::prop("whichever of them comes first", [] {
    std::uint64_t const mebibytes = 64;
    auto const layer = even_layer(mebibytes);
    auto const length = *rc::gen::element<std::uint64_t>(4096, 128 * 1024, 256 * 1024);
    auto const most_under_way = *rc::gen::inRange<std::size_t>(1, 65);
    FetchPolicy policy({});
    Fetches fetches(layer, policy);

    std::deque<std::uint64_t> under_way;
    std::uint64_t at = 0;
    std::mt19937 engine(*rc::gen::arbitrary<std::uint32_t>());
    while (at < layer.decoded_size || !under_way.empty()) {
      // No read is later than those that a client with so many under way can have asked since.
      while (at < layer.decoded_size &&
             (under_way.empty() || at < under_way.front() + most_under_way * length)) {
        under_way.push_back(at);
        at += length;
      }
      auto const chosen =
          under_way.begin() + static_cast<std::ptrdiff_t>(engine() % under_way.size());
      auto const end = std::min(*chosen + length, layer.decoded_size);
      fetches.read(*chosen, end, most_under_way);
      under_way.erase(chosen);
    }

    RC_ASSERT(fetches.requests() <= mebibytes / 4);
  });
}

TEST_CASE("What is fetched beyond doubles for one who goes on, and not for one who jumps",
          "[gzip][fetch]") {
  FetchPolicy policy({.first = 100, .most = 1000, .nearby = 10});
  CHECK(policy.read(0, 50, true).beyond == 100);
  CHECK(policy.read(50, 90, false).beyond == 100);
  CHECK(policy.read(95, 120, true).beyond == 200);
  CHECK(policy.read(5000, 5100, true).beyond == 100);  // a jump
  CHECK(policy.read(120, 130, true).beyond == 400);    // the first one goes on
  CHECK(policy.read(130, 140, true).beyond == 800);
  CHECK(policy.read(140, 150, true).beyond == 1000);
  CHECK(policy.runs(1000));
  CHECK_FALSE(policy.runs(400));
  CHECK(policy.read(5111, 5120, true).beyond == 100);  // not near enough
  for (std::uint64_t i = 0; i < 16; ++i)
    (void)policy.read(100'000 * (i + 1), 100'000 * (i + 1), true);
  CHECK(policy.read(150, 160, true).beyond == 100);  // forgotten
}

TEST_CASE("A quarter of a link's product is fetched beyond, between two bounds", "[gzip][fetch]") {
  FetchPolicy policy({.first = 100, .most = 1000, .nearby = 10});
  std::uint64_t at = 0;
  for (auto const& [product, beyond] : std::initializer_list<std::pair<int, int>>{{0, 100},
                                                                                  {399, 100},
                                                                                  {404, 101},
                                                                                  {1000, 250},
                                                                                  {1004, 250},
                                                                                  {1'000'000, 250},
                                                                                  {0, 100}}) {
    policy.widen(static_cast<std::uint64_t>(product));
    auto const more = policy.read(at, at + 50, true);
    CHECK(more.beyond == static_cast<std::uint64_t>(beyond));
    CHECK_FALSE(more.whole_spans);
    at += 1000;
  }
}

TEST_CASE("A reader that has begun does not seem to go on as the link's product changes",
          "[gzip][fetch]") {
  FetchPolicy policy({.first = 100, .most = 1000, .nearby = 10});
  policy.widen(800);
  CHECK(policy.read(0, 50, true).beyond == 200);
  policy.widen(0);
  CHECK_FALSE(policy.read(50, 60, false).whole_spans);
  CHECK(policy.read(60, 70, true).whole_spans);
}

TEST_CASE("A first fetch is never less than asked for, however little a reader's most is",
          "[gzip][fetch]") {
  FetchPolicy policy({.first = 100, .most = 100, .nearby = 10});
  policy.widen(1'000'000);
  CHECK(policy.read(0, 50, true).beyond == 100);
}

}  // namespace fetch_policy_test
}  // namespace erofs_oci
