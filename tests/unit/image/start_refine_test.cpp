// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/start_refine.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <cstdint>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/source/memory.hpp>

namespace erofs_oci {
namespace start_refine_test {

Digest digest(char name) {
  return digest_of(as_bytes(std::string(1, name)));
}

// A layer of which each decoded byte takes a byte of the blob, and each range gets a checkpoint.
StartLayer layer(char name, bool finds = true) {
  StartLayer made;
  made.digest = digest(name);
  made.size = 10'000;
  made.find_checkpoints = [finds](AnySource const&,
                                  std::span<ByteRange const> read) -> Result<FoundCheckpoints> {
    FoundCheckpoints found;
    for (std::size_t i = 0; i < read.size(); ++i) {
      found.needed.push_back({i, read[i]});
      if (finds) found.points.push_back({{read[i].begin, read[i].begin, 0}, Bytes(400), {}});
    }
    return found;
  };
  return made;
}

StartList list_of(std::vector<StartRange> const& ranges) {
  StartList list;
  for (auto const& range : ranges) list.add(range);
  return list;
}

AnySource const nothing{Memory(Bytes())};

TEST_CASE("What a layer needs is as it was read, in the place of its first range",
          "[image][start_refine]") {
  auto const list = list_of({{digest('a'), 0, 10},
                             {digest('b'), 0, 5000},
                             {digest('c'), 0, 10},
                             {digest('b'), 6000, 9000}});
  std::vector<ByteRange> const reads{{700, 800}, {100, 200}, {150, 300}, {5, 5}, {800, 900}};

  auto const refined = refine_start(list, layer('b'), reads, nothing);

  REQUIRE(refined.has_value());
  CHECK(refined->list == list_of({{digest('a'), 0, 10},
                                  {digest('b'), 700, 900},
                                  {digest('b'), 100, 300},
                                  {digest('c'), 0, 10}}));
  REQUIRE(refined->extra.points().size() == 2);
  CHECK(refined->extra.points()[0].start == Checkpoint{100, 100, 0});
  CHECK(refined->extra.points()[1].start == Checkpoint{700, 700, 0});
}

TEST_CASE("A list stays as it is if no checkpoint is worth it", "[image][start_refine]") {
  auto const list = list_of({{digest('b'), 0, 5000}});
  std::vector<ByteRange> const reads{{700, 800}};
  auto const refined = refine_start(list, layer('b', false), reads, nothing);
  REQUIRE(refined.has_value());
  CHECK(refined->list == list);
  CHECK(refined->extra.empty());
}

TEST_CASE("A list of a layer whose checkpoints were known names what reads need",
          "[image][start_refine]") {
  auto const list = list_of({{digest('b'), 0, 5000}});
  auto known = layer('b', false);
  known.extra.add({{50, 50, 0}, {}});
  std::vector<ByteRange> const reads{{700, 800}};
  auto const refined = refine_start(list, known, reads, nothing);
  REQUIRE(refined.has_value());
  CHECK(refined->list == list_of({{digest('b'), 700, 800}}));
  CHECK(refined->extra.points().size() == 1);
}

TEST_CASE("A failed search is an error", "[image][start_refine][error]") {
  auto broken = layer('b');
  broken.find_checkpoints = [](AnySource const&, std::span<ByteRange const>) {
    return Result<FoundCheckpoints>(fail(Errc::unavailable, "gone"));
  };
  std::vector<ByteRange> const reads{{700, 800}};
  CHECK(!refine_start({}, broken, reads, nothing));
}

TEST_CASE("If there is no room, checkpoints go that the list does not begin at",
          "[image][start_refine]") {
  auto known = layer('b');
  for (std::uint64_t i = 1; i <= ExtraCheckpoints::most; ++i) {
    known.extra.add({{i * 9, i * 9, 0}, Bytes(10)});
  }
  auto const list = list_of({{digest('b'), 0, 5000}});
  std::vector<ByteRange> const reads{{701, 800}, {18, 30}};  // of which the second one is there
  auto const refined = refine_start(list, known, reads, nothing);
  REQUIRE(refined.has_value());
  REQUIRE(refined->extra.points().size() == 2);
  CHECK(refined->extra.points()[0].start == Checkpoint{18, 18, 0});
  CHECK(refined->extra.points()[1].start == Checkpoint{701, 701, 0});
}

}  // namespace start_refine_test
}  // namespace erofs_oci
