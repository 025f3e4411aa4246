// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/gzip/extra_checkpoints.hpp>  // first: proves that the header stands alone

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/gzip/window.hpp>

namespace erofs_oci {
namespace extra_checkpoints_test {

TEST_CASE("Extra checkpoints keep their bounds and rise", "[gzip][extra]") {
  ExtraCheckpoints extra;
  Bytes const window(1024);
  for (std::uint64_t i = 1; i <= 1200; ++i) extra.add({{i * 10, i * 100, 0}, window});
  CHECK(extra.points().size() == 1024);
  CHECK_FALSE(extra.add({{20'000, 200'000, 0}, {}}));

  ExtraCheckpoints few;
  CHECK(few.add({{1000, 5000, 0}, Bytes(1 << 20)}));
  CHECK_FALSE(few.add({{2000, 6000, 0}, Bytes(1)}));  // no room for its window
  CHECK(few.add({{3000, 7000, 0}, {}}));
  CHECK_FALSE(few.add({{3000, 7000, 0}, {}}));     // is there
  CHECK_FALSE(few.add({{4000, 6999, 0}, {}}));     // goes back
  CHECK_FALSE(few.add({{2000, 4999, 0}, {}}));     // before the one before it
  CHECK_FALSE(few.add({{10, 1'000'000, 0}, {}}));  // no deflate data holds so much
  CHECK(few.add({{2000, 6000, 7}, {}}));
  CHECK(few.points()[1].start == Checkpoint{2000, 6000, 7});
}

// Says in its first bytes whose window it is.
Result<void> numbered(std::size_t i, std::span<std::byte, gzip_window_size> window) {
  window[0] = std::byte(i);
  return {};
}

TEST_CASE("Added checkpoints cut spans, whose pieces stay those of the index", "[gzip][extra]") {
  GzipIndex const index{{{10, 0, 0}, {1000, 5000, 3}, {2000, 9000, 0}}, numbered};
  Bytes window(gzip_window_size);
  window[0] = std::byte{77};
  ExtraCheckpoints extra;
  CHECK(extra.add({{500, 2000, 1}, {}}));
  CHECK(extra.add({{1000, 5000, 3}, {}}));  // the index has it
  CHECK(extra.add({{2500, 9500, 0},
                   pack_window(std::span(window).first<gzip_window_size>(), WindowUse().set())}));

  auto const merged = add_checkpoints(index, extra);

  CHECK(merged.checkpoints ==
        std::vector<Checkpoint>{
            {10, 0, 0}, {500, 2000, 1}, {1000, 5000, 3}, {2000, 9000, 0}, {2500, 9500, 0}});
  CHECK(merged.pieces_of == std::vector<std::size_t>{0, 0, 2, 3, 3});
  auto const first = [&](std::size_t i) {
    std::array<std::byte, gzip_window_size> out{};
    REQUIRE(merged.window(i, out).has_value());
    return std::to_integer<int>(out[0]);
  };
  CHECK(first(0) == 0);
  CHECK(first(1) == 0);  // packed as empty
  CHECK(first(2) == 1);
  CHECK(first(3) == 2);
  CHECK(first(4) == 77);
}

TEST_CASE("Rests of pieces are beside the pieces in which they lie", "[gzip][extra]") {
  auto const digest = Digest::parse("sha256:" + std::string(64, '1')).value();
  ExtraCheckpoints extra;
  for (auto const at : {50U, 100U, 150U, 170U, 180U, 250U}) {
    CHECK(extra.add({{at, at * 10, 0}, {}, at == 170 ? Digest() : digest}));
  }
  CHECK(extra.add({{300, 3000, 1}, {}, digest}));  // its first byte is in two pieces

  auto const all = add_rests({{100, 200, {}}, {200, 300, {}}, {299, 320, {}}}, extra);

  std::vector<std::pair<std::uint64_t, std::uint64_t>> places;
  for (auto const& chunk : all) places.emplace_back(chunk.begin, chunk.end);
  using Places = decltype(places);
  CHECK(places == Places{{100, 200}, {150, 200}, {180, 200}, {200, 300}, {250, 300}, {299, 320}});
  CHECK(all[1].digest == digest);
  CHECK(all[3].digest == Digest());
}

TEST_CASE("Checkpoints that do not fit an index are not added", "[gzip][extra]") {
  GzipIndex const index{{{10, 0, 0}, {1000, 5000, 3}}, numbered};
  ExtraCheckpoints extra;
  CHECK(extra.add({{500, 6000, 0}, {}}));  // decoded behind the next one
  CHECK(add_checkpoints(index, extra).checkpoints == index.checkpoints);
  auto assumed = index;
  assumed.first_is_assumed = true;
  ExtraCheckpoints good;
  CHECK(good.add({{500, 2000, 0}, {}}));
  CHECK(add_checkpoints(assumed, good).checkpoints == index.checkpoints);
  CHECK(add_checkpoints(index, good).checkpoints.size() == 3);
}

}  // namespace extra_checkpoints_test
}  // namespace erofs_oci
