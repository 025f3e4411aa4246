// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tar/sparse.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

#include "data_path.hpp"
#include "support.hpp"

namespace erofs_oci::tar {
namespace sparse_test {

using testing::TarMaker;

constexpr std::uint64_t top = std::numeric_limits<std::uint64_t>::max();

/// An old GNU sparse member: header, extension blocks, data.
TarMaker old_sparse(std::vector<Segment> const& segments, std::uint64_t real_size,
                    std::string const& data) {
  auto header = testing::header_block(
      {.name = "s", .typeflag = 'S', .size = data.size(), .magic = TarMaker::gnu_magic()}, 0);
  std::vector<Bytes> extensions;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    if (i >= 4 && (i - 4) % 21 == 0) extensions.emplace_back(512);
    auto& block = i < 4 ? header : extensions.back();
    auto const at = i < 4 ? 386 + 24 * i : 24 * ((i - 4) % 21);
    testing::put_number(block, at, 11, segments[i].offset);
    testing::put_number(block, at + 12, 11, segments[i].length);
  }
  testing::put_number(header, 483, 11, real_size);
  if (!extensions.empty()) header[482] = std::byte{1};
  for (std::size_t i = 0; i + 1 < extensions.size(); ++i) extensions[i][504] = std::byte{1};
  testing::seal(header);
  TarMaker maker;
  maker.raw(header);
  for (auto const& block : extensions) maker.raw(block);
  Bytes padded = to_bytes(data);
  padded.resize((data.size() + 511) / 512 * 512);
  maker.raw(padded);
  return maker;
}

TEST_CASE("All sparse forms of one file say the same", "[tar][sparse][fixture]") {
  auto const form = GENERATE(as<std::string>{}, "gnu", "pax0.0", "pax0.1", "pax1.0");
  auto const archive = read_file(test_data("/tarindex/in/sparse-") + form + ".tar");

  auto const decoded = decode(archive);

  REQUIRE(decoded.error.empty());
  REQUIRE(decoded.entries.size() == 3);
  auto const& file = decoded.entries[2];
  CHECK(file.path == "./sparse");
  CHECK(file.sparse);
  CHECK(file.size == 1048576);
  REQUIRE(file.extents.size() == 2);
  auto const& [first, second] = std::pair(file.extents[0], file.extents[1]);
  CHECK(first.file_offset == 65536);
  CHECK(first.length == 4096);
  CHECK(second.file_offset == 499712);
  CHECK(second.tar_offset == first.tar_offset + 4096);
  CHECK(archive[static_cast<std::size_t>(first.tar_offset)] == std::byte{'A'});
  CHECK(archive[static_cast<std::size_t>(second.tar_offset) + 500000 - 499712] == std::byte{'B'});
}

TEST_CASE("Old sparse maps go on in extension blocks", "[tar][sparse]") {
  auto const count = GENERATE(as<std::size_t>{}, 0, 1, 4, 5, 25, 26, 46, 47);
  std::vector<Segment> segments;
  for (std::size_t i = 0; i < count; ++i) segments.push_back({i * 1024, 512});
  auto maker = old_sparse(segments, 1 << 20, std::string(count * 512, 'd'));
  maker.file("next").end();

  auto const decoded = decode(maker.bytes());

  INFO(decoded.error);
  REQUIRE(decoded.entries.size() == 2);
  CHECK(decoded.entries[0].size == 1 << 20);
  REQUIRE(decoded.entries[0].extents.size() == count);
  if (count > 0) {
    auto const blocks = 1 + (count > 4 ? (count - 4 + 20) / 21 : 0);
    CHECK(decoded.entries[0].extents.back() ==
          Extent{(count - 1) * 1024, (blocks + count - 1) * 512, 512});
  }
}

TEST_CASE("A sparse map in the data may fill whole blocks", "[tar][sparse]") {
  auto const count = GENERATE(as<std::size_t>{}, 0, 1, 20, 50, 100);
  auto map = std::to_string(count) + "\n";
  for (std::size_t i = 0; i < count; ++i) map += std::to_string(i * 1024) + "\n512\n";
  map.resize((map.size() + 511) / 512 * 512);
  TarMaker maker;
  maker.pax({{"GNU.sparse.major", "1"},
             {"GNU.sparse.minor", "0"},
             {"GNU.sparse.name", "real"},
             {"GNU.sparse.realsize", "1048576"}});
  maker.file("GNUSparseFile.1/real", map + std::string(count * 512, 'd')).file("next").end();

  auto const decoded = decode(maker.bytes());

  INFO(decoded.error);
  REQUIRE(decoded.entries.size() == 2);
  CHECK(decoded.entries[0].path == "real");
  REQUIRE(decoded.entries[0].extents.size() == count);
  if (count > 0) CHECK(decoded.entries[0].extents[0].tar_offset == 1536 + map.size());
}

TEST_CASE("Segments are placed one after another", "[tar][sparse]") {
  auto const extents =
      place_segments({{0, 512}, {512, 512}, {2048, 100}, {4096, 0}}, 4096, 5120, 1124);

  REQUIRE(extents);
  CHECK(*extents == std::vector<Extent>{{0, 5120, 1024}, {2048, 6144, 100}});

  // An empty segment does not bridge the hole before it.
  auto const apart = place_segments({{0, 512}, {1024, 0}, {1024, 512}}, 2048, 512, 1024);
  REQUIRE(apart);
  CHECK(*apart == std::vector<Extent>{{0, 512, 512}, {1024, 1024, 512}});
}

TEST_CASE("Segments that cannot be are refused", "[tar][sparse][error]") {
  auto const fails = [](std::vector<Segment> const& segments, std::uint64_t size,
                        std::uint64_t packed) {
    auto const extents = place_segments(segments, size, 512, packed);
    return !extents && extents.error().code == Errc::corrupt;
  };
  CHECK(fails({{0, 513}}, 512, 513));                // leaves the file
  CHECK(fails({{0, 512}, {511, 10}}, 4096, 522));    // overlaps
  CHECK(fails({{512, 512}, {0, 512}}, 4096, 1024));  // out of order
  CHECK(fails({{0, 512}}, 4096, 511));               // more than there is
  CHECK(fails({{0, 512}}, 4096, 513));               // less than there is
  CHECK(fails({{top, 2}}, 4096, 2));                 // overflows
  CHECK(fails({{0, top}, {top, 1}}, top, 0));
  CHECK(fails({{4097, 0}}, 4096, 0));
}

TEST_CASE("Sparse maps with wrong values or without an end are errors that name the member",
          "[tar][sparse][error]") {
  auto const pax1 = [](std::string map) {
    TarMaker maker;
    maker.pax({{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.realsize", "9"}});
    map.resize((map.size() + 511) / 512 * 512, '\0');
    return decode(maker.file("liar", map).end().bytes());
  };
  CHECK(pax1("x\n").code == Errc::corrupt);
  CHECK(pax1("\n").code == Errc::corrupt);
  CHECK(pax1("1\n0\n99\n").code == Errc::corrupt);
  CHECK(pax1("3\n0\n1\n").code == Errc::corrupt);
  CHECK(pax1("").code == Errc::corrupt);
  CHECK(pax1("4611686018427387904\n").code == Errc::unsupported);
  CHECK(pax1("99999999999999999999999\n").code == Errc::corrupt);
  CHECK(pax1(std::string(512, '1')).code == Errc::corrupt);
  CHECK(pax1("x\n").error.find("'liar' at offset 1024") != std::string::npos);
}

TEST_CASE("Sparse forms that we do not know are passed over", "[tar][sparse]") {
  auto const version = [](std::string const& major, std::string const& minor) {
    auto const decoded = decode(TarMaker()
                                    .pax({{"GNU.sparse.major", major},
                                          {"GNU.sparse.minor", minor},
                                          {"GNU.sparse.realsize", "0"}})
                                    .file("f", "data")
                                    .file("next")
                                    .bytes());
    CHECK(decoded.error.empty());
    REQUIRE(decoded.entries.size() == 1);
    CHECK(decoded.entries[0].path == "next");
    REQUIRE(decoded.reports.size() == 1);
    return decoded.reports[0].text;
  };
  CHECK(version("2", "0") == "member 'f' at offset 1024: passed over: GNU.sparse version 2.0");
  CHECK(version("1", "1") == "member 'f' at offset 1024: passed over: GNU.sparse version 1.1");
}

TEST_CASE("A sparse file that is passed over leaves nothing to the next member", "[tar][sparse]") {
  auto maker = old_sparse({{1, 3}, {900, 600}, {3000, 1}, {4000, 1}, {5000, 1}}, 6000,
                          std::string(606, 'd'));
  auto archive = maker.file("next", "data").end().bytes();
  archive[0] = std::byte{0};
  testing::seal(archive);

  auto const decoded = decode(archive);

  CHECK(decoded.error.empty());
  REQUIRE(decoded.entries.size() == 1);
  CHECK(decoded.entries[0].copies.empty());
  CHECK(decoded.reports.size() == 1);
}

TEST_CASE("A sparse map beyond the limit is refused", "[tar][sparse][error]") {
  std::vector<Segment> segments(max_segments + 1, Segment{0, 0});
  auto const maker = old_sparse(segments, 0, "");

  CHECK(decode(maker.bytes()).code == Errc::unsupported);
}

TEST_CASE("A hole of 2^62 bytes costs nothing", "[tar][sparse]") {
  auto maker = old_sparse({{std::uint64_t{1} << 62, 0}}, std::uint64_t{1} << 62, "");

  auto const entry = only_entry(maker.end().bytes());

  CHECK(entry.size == std::uint64_t{1} << 62);
  CHECK(entry.extents.empty());
}

Bytes numbered(std::uint64_t from, std::uint64_t length) {
  Bytes bytes;
  for (auto i = from; i < from + length; ++i) bytes.push_back(static_cast<std::byte>(i % 251 + 1));
  return bytes;
}

/// What is copied of a file of `size` bytes, from an archive of numbered(0, ...).
std::vector<Copy> copies_of(std::vector<Extent> const& extents, std::uint64_t size) {
  auto copier = SparseCopier::make(extents, size);
  REQUIRE(copier);
  while (copier->next() < std::uint64_t{1} << 40) {
    copier->take(copier->next() / 512 * 512, numbered(copier->next() / 512 * 512, 700));
  }
  return std::move(*copier).finish();
}

TEST_CASE("Whole blocks of a sparse file are read in place", "[tar][sparse]") {
  CHECK(copies_of({{0, 5120, 1024}, {2048, 6144, 512}}, 4096).empty());
  CHECK(copies_of({{1024, 512, 700}}, 1724).empty());  // only the file's end cuts a block
  CHECK(copies_of({}, std::uint64_t{1} << 62).empty());
}

TEST_CASE("Blocks of which only a part is data are copied", "[tar][sparse]") {
  auto const one = copies_of({{50000, 1024, 1}}, 60000);
  REQUIRE(one.size() == 1);
  CHECK(one[0].file_offset == 49664);
  Bytes expected(512);
  expected[336] = numbered(1024, 1)[0];
  CHECK(one[0].bytes == expected);

  // A segment that ends in a hole, and its neighbour in the same block.
  auto const end = copies_of({{0, 1024, 700}}, 4096);
  REQUIRE(end.size() == 1);
  CHECK(end[0].file_offset == 512);
  auto const two = copies_of({{0, 1024, 100}, {200, 1124, 100}}, 512);
  REQUIRE(two.size() == 1);
  CHECK(two[0].bytes.size() == 512);
  CHECK(two[0].bytes[199] == std::byte{0});
  CHECK(two[0].bytes[299] == numbered(1223, 1)[0]);
}

TEST_CASE("Segments that lie elsewhere in blocks than in the file are copied whole",
          "[tar][sparse]") {
  auto const copies = copies_of({{0, 512, 3}, {1024, 515, 2048}}, 4096);
  REQUIRE(copies.size() == 2);
  CHECK(copies[1].file_offset == 1024);
  CHECK(copies[1].bytes == numbered(515, 2048));
}

TEST_CASE("A byte in a huge hole costs little", "[tar][sparse]") {
  auto const size = std::uint64_t{1} << 40;
  auto const copies = copies_of({{size / 2, 1024, 1}}, size);
  REQUIRE(copies.size() == 1);
  CHECK(copies[0].bytes.size() == 2 << 20);  // and 524288 chunks of 8 bytes
  CHECK(copies[0].bytes[0] == numbered(1024, 1)[0]);
}

TEST_CASE("More odd segments than can be copied are refused", "[tar][sparse][error]") {
  std::vector<Extent> const most{{1, 512, max_copied - 512}};
  CHECK(SparseCopier::make(most, 2 * max_copied).has_value());
  std::vector<Extent> const more{{1, 512, max_copied}};
  auto const refused = SparseCopier::make(more, 2 * max_copied);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Errc::unsupported);
}

}  // namespace sparse_test
}  // namespace erofs_oci::tar
