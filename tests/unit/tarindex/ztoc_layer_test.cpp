// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tarindex/ztoc_layer.hpp>  // first: proves that the header stands alone

#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/testing/ztoc_maker.hpp>

#include "data_path.hpp"
#include "support.hpp"

namespace erofs_oci::tarindex {
namespace ztoc_layer_test {

using testing::TarMaker;

Ztoc ztoc_of(Bytes const& archive) {
  auto ztoc = testing::plain_ztoc(archive, 1 << 20);
  ztoc.files = testing::ztoc_files(archive);
  return ztoc;
}

/// The rows of a layer, with the data that its extents lead to.
Rows rows_in(Layer const& layer, Bytes const& archive) {
  return Lister(layer.tree, {archive}, Show::overlay).rows();
}

void check_same(Bytes const& archive, LayerOptions options = {}) {
  auto const expected = layer_of(archive, options);
  REQUIRE(expected.has_value());

  auto const layer = ztoc_layer(*parse_ztoc(testing::encode_ztoc(ztoc_of(archive))), options);

  if (!layer) FAIL(layer.error().message());
  check_rows(rows_in(*layer, archive), rows_in(*expected, archive));
  CHECK(layer->dangling == expected->dangling);
  CHECK(layer->reports.list() == expected->reports.list());
}

TEST_CASE("The tree of a ztoc is the tree of its archive", "[tarindex][ztoc][fixture]") {
  for (auto const* const name :
       {"basic",  "gnu",   "prefix",  "root",    "whiteout", "dirtypad", "noeot",
        "oneblk", "empty", "garbage", "odd",     "nultype",  "pax",      "v7",
        "badhl",  "fwdhl", "hldir",   "rootopq", "L0",       "L1",       "L2"}) {
    INFO(name);
    auto const archive = read_data("in/" + std::string(name) + ".tar");
    check_same(archive);
    check_same(archive, {.whiteouts = Whiteouts::literal});
  }
  check_same(read_data("in/bigdir.tar.gz"));
}

Bytes read_oci(std::string const& name) {
  std::ifstream in(test_data("/oci/") + name, std::ios::binary);
  REQUIRE(in.good());
  std::string const text{std::istreambuf_iterator<char>(in), {}};
  return to_bytes(text);
}

TEST_CASE("Another reader's list of an archive gives the same tree", "[tarindex][ztoc][fixture]") {
  auto const archive = gunzip(read_oci("basic.tar.gz"));
  auto const ztoc = parse_ztoc(read_oci("basic.ztoc"));
  REQUIRE(ztoc.has_value());

  auto const layer = ztoc_layer(*ztoc);

  if (!layer) FAIL(layer.error().message());
  check_rows(rows_in(*layer, archive), rows_in(*layer_of(archive), archive));
}

TEST_CASE("A ztoc with sparse members is refused", "[tarindex][ztoc][error]") {
  for (auto const* const name : {"sparse-gnu", "sparse-pax0.0", "sparse-pax0.1", "sparse-pax1.0"}) {
    INFO(name);
    auto const layer = ztoc_layer(ztoc_of(read_data("in/" + std::string(name) + ".tar")));
    REQUIRE_FALSE(layer.has_value());
    CHECK(layer.error().code == Errc::unsupported);
  }
}

/// Two files and a link.
Bytes const archive = TarMaker()
                          .dir("d/")
                          .file("d/one", "first")
                          .file("two", std::string(600, 'x'))
                          .symlink("s", "two")
                          .member({.name = "c", .typeflag = '3', .dev_major = 5, .dev_minor = 6})
                          .end()
                          .bytes();

using Change = std::function<void(std::vector<ZtocFile>&)>;

Result<Layer> changed(Change const& change) {
  auto ztoc = ztoc_of(archive);
  change(ztoc.files);
  return ztoc_layer(ztoc);
}

Change record(std::string key, std::string value) {
  return [=](std::vector<ZtocFile>& files) { files[1].records = {{key, value}}; };
}

TEST_CASE("A ztoc that is in doubt is not believed", "[tarindex][ztoc][error]") {
  REQUIRE(changed([](auto&) {}).has_value());
  auto const changes = std::vector<std::pair<std::string, Change>>{
      {"type", [](auto& f) { f[0].type = "socket"; }},
      {"no type", [](auto& f) { f[0].type = ""; }},
      {"data inside a block", [](auto& f) { f[1].offset += 1; }},
      {"data before the header", [](auto& f) { f[0].offset = 0; }},
      {"no room for a header", [](auto& f) { f[2].offset -= 512; }},
      {"data of two members overlap: a sparse file's size", [](auto& f) { f[1].size = 513; }},
      {"out of order", [](auto& f) { std::swap(f[1], f[2]); }},
      {"behind the end", [](auto& f) { f[2].size = 1U << 20; }},
      {"huge", [](auto& f) { f[2].size = (1ULL << 63) - 1; }},
      {"far", [](auto& f) { f[4].offset = (1ULL << 63) - 512; }},
      {"no name", [](auto& f) { f[1].name = ""; }},
      {"no target", [](auto& f) { f[3].link = ""; }},
      {"NUL in a name", [](auto& f) { f[1].name = std::string("a\0b", 3); }},
      {"NUL in a target", [](auto& f) { f[3].link = std::string("a\0b", 3); }},
      {"long name", [](auto& f) { f[1].name = std::string(4096, '/'); }},
      {"no time", [](auto& f) { f[1].time = ""; }},
      {"bad time", [](auto& f) { f[1].time = "2020-02-30T00:00:00Z"; }},
      {"local mean time", [](auto& f) { f[1].time = "1883-11-18T12:03:57-04:56"; }},
      {"device", [](auto& f) { f[4].dev_major = -1; }},
      {"sparse, PAX 1.0", record("GNU.sparse.major", "1")},
      {"sparse, PAX 0.1", record("GNU.sparse.map", "0,1")},
      {"another name", record("path", "other")},
      {"another size", record("size", "6")},
      {"another owner", record("uid", "4294967296")},
      {"another group", record("gid", "1")},
      {"another target", record("linkpath", "x")},
      {"bad record", record("uid", "x")},
      {"record without a key", record("", "x")},
      {"record with =", record("a=b", "x")},
      {"bare attribute", record("security.capability", "x")},
  };
  for (auto const& [name, change] : changes) {
    INFO(name);

    auto const layer = changed(change);

    REQUIRE_FALSE(layer.has_value());
    CHECK(layer.error().code == Errc::unsupported);
  }
}

TEST_CASE("Sizes of members without data do not count", "[tarindex][ztoc]") {
  CHECK(changed([](auto& files) { files[0].size = files[3].size = 1'000'000; }).has_value());
}

TEST_CASE("Records say what an archive's extended header says", "[tarindex][ztoc]") {
  auto const layer = changed([](std::vector<ZtocFile>& files) {
    files[1].mode = 0100755;
    files[1].records = {{"LIBARCHIVE.xattr.user.a", "dmFsdWU="},
                        {"SCHILY.xattr.user.b", std::string("\0\n=\xff", 4)},
                        {"comment", "x"},
                        {"mtime", "-1.25"},
                        {"path", "d/one"},
                        {"size", "5"},
                        {"uid", "0"}};
  });
  REQUIRE(layer.has_value());
  auto const rows = rows_in(*layer, archive);
  auto const& row = rows.at("/d/one");
  CHECK(row.mode == 0755);
  CHECK(row.mtime == -2);
  CHECK(row.nsec == 750'000'000);
  CHECK(row.xattrs.at("user.a") == "value");
  CHECK(row.xattrs.at("user.b") == std::string("\0\n=\xff", 4));
}

TEST_CASE("rfc3339_time reads what Go writes", "[tarindex][ztoc]") {
  CHECK(rfc3339_time("1970-01-01T00:00:00Z") == tar::Time{0, 0});
  CHECK(rfc3339_time("1969-12-31T23:59:59.25Z") == tar::Time{-1, 250'000'000});
  CHECK(rfc3339_time("2023-11-14T22:13:20Z") == tar::Time{1700000000, 0});
  CHECK(rfc3339_time("2023-11-14T23:13:20.123456789+01:00") == tar::Time{1700000000, 123456789});
  CHECK(rfc3339_time("2023-11-14T16:43:20-05:30") == tar::Time{1700000000, 0});
  CHECK(rfc3339_time("0000-01-01T00:00:00Z") == tar::Time{-62167219200, 0});
  CHECK(rfc3339_time("9999-12-31T23:59:59Z") == tar::Time{253402300799, 0});
  for (auto const* const text : {"",
                                 "2023",
                                 "2023-11-14",
                                 "2023-11-14T22:13:20",
                                 "2023-11-14 22:13:20Z",
                                 "2023-13-14T22:13:20Z",
                                 "2023-00-14T22:13:20Z",
                                 "2023-11-00T22:13:20Z",
                                 "2023-02-29T22:13:20Z",
                                 "2023-11-14T24:13:20Z",
                                 "2023-11-14T22:60:20Z",
                                 "2023-11-14T22:13:60Z",
                                 "2023-11-14T22:13:20.Z",
                                 "2023-11-14T22:13:20.1234567890Z",
                                 "2023-11-14T22:13:20+24:00",
                                 "2023-11-14T22:13:20+1:00",
                                 "2023-11-14T22:13:20ZZ",
                                 "+2023-11-14T22:13:20Z",
                                 "2023-11-14T22:13:20.5",
                                 "2023-11-14t22:13:20z",
                                 "20 3-11-14T22:13:20Z",
                                 "2023-11-14T22:13:20+01:00x"}) {
    INFO(text);
    CHECK_FALSE(rfc3339_time(text).has_value());
  }
}

TEST_CASE("rfc3339_time is the inverse of writing", "[tarindex][ztoc][property]") {
  rc::prop("for all times from year 0 to 9999", [] {
    auto const seconds = *rc::gen::inRange<std::int64_t>(-62167219200, 253402300800);
    auto const nanoseconds = *rc::gen::inRange<std::uint32_t>(0, 1'000'000'000);

    auto const time = rfc3339_time(testing::rfc3339(seconds, nanoseconds));

    RC_ASSERT((time == tar::Time{seconds, nanoseconds}));
  });
}

}  // namespace ztoc_layer_test
}  // namespace erofs_oci::tarindex
