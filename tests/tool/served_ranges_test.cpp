// SPDX-License-Identifier: Apache-2.0
#include "served_ranges.hpp"  // first: proves that the header stands alone

#include <algorithm>
#include <string>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/testing/tar_maker.hpp>

namespace mount_oci {
namespace served_ranges_test {

using erofs_oci::AnySource;
using erofs_oci::Memory;
namespace erofs = erofs_oci::erofs;

TEST_CASE("No byte that was noted is missing, and few are too many", "[tool][served][property]") {
  rc::prop("for all ranges, in any order",
           [](std::vector<std::pair<std::uint16_t, std::uint8_t>> const& notes) {
             ServedRanges ranges;
             std::vector<bool> noted(1 << 17);
             for (auto const& [begin, length] : notes) {
               ranges.note(begin, std::uint64_t{begin} + length);
               std::fill_n(noted.begin() + begin, length, true);
             }

             auto const list = ranges.list();

             std::vector<bool> found(noted.size());
             for (std::size_t i = 0; i < list.size(); ++i) {
               RC_ASSERT(list[i].begin < list[i].end);
               if (i > 0) RC_ASSERT(list[i - 1].end < list[i].begin);
               std::fill(found.begin() + static_cast<std::ptrdiff_t>(list[i].begin),
                         found.begin() + static_cast<std::ptrdiff_t>(list[i].end), true);
             }
             RC_ASSERT(found == noted);
           });
}

TEST_CASE("Beyond their number ranges that are near become one", "[tool][served]") {
  ServedRanges ranges;
  for (std::uint64_t i = 0; i < 2 * ServedRanges::most; ++i) {
    ranges.note(1000 * i, 1000 * i + 10);
    ranges.note(1000 * i + 20, 1000 * i + 30);
  }
  auto const list = ranges.list();
  CHECK(list.size() <= ServedRanges::most);
  CHECK(list.front().begin == 0);
  CHECK(list.back().end == 1000 * (2 * ServedRanges::most - 1) + 30);
}

TEST_CASE("The files are told that ranges have bytes of, those of one layer", "[tool][served]") {
  erofs_oci::testing::TarMaker maker;
  maker.dir("d");
  for (auto const* const name : {"d/a", "d/b", "d/c"}) {
    maker.member({.name = name}, erofs_oci::Bytes(10'000, std::byte{1}));
  }
  auto const built = erofs_oci::tarindex::build_layer(Memory(maker.end().bytes())).value();
  auto const name = erofs_oci::tarindex::data_name(built.index);
  AnySource const metadata{Memory(built.tarindex)};
  // The tar lies behind the metadata: a header of 512 bytes before each file, one for the
  // directory.
  auto const at = [&](std::uint64_t offset) { return built.tarindex.size() + offset; };
  auto const files = [&](std::vector<ByteRange> const& ranges, std::string const& layer) {
    return served_files(metadata, layer, ranges).value();
  };
  auto const header = std::uint64_t{512};

  CHECK(files({}, name).count == 0);
  CHECK(files({{0, at(header)}}, name).count == 0);
  CHECK(files({{at(2 * header), at(2 * header + 1)}}, name).names ==
        std::vector<std::string>{"/d/a"});
  auto const all = files({{0, at(1'000'000)}}, name);
  CHECK(all.names == std::vector<std::string>{"/d/a", "/d/b", "/d/c"});
  CHECK(all.count == 3);
  CHECK(files({{0, at(1'000'000)}}, "another").count == 0);
}

}  // namespace served_ranges_test
}  // namespace mount_oci
