// SPDX-License-Identifier: Apache-2.0
// Each row of doc/formats/oddities.md: an archive that is odd in that way, and what comes of it.
#include <catch.hpp>

#include <functional>

#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/tarindex/merge.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>

#include "support.hpp"

namespace erofs_oci::tarindex {
namespace oddities_test {

using testing::TarMaker;

/// What comes of an image: the document's word, and what its files are.
struct Outcome {
  std::string verdict;
  std::string error;
  std::vector<std::string> files;  ///< "PATH TYPE", with size, target or number; without the root
  Rows rows;
};

std::string line(std::string const& path, Row const& row) {
  auto const detail = row.type == "reg"   ? " " + std::to_string(row.size)
                      : row.type == "lnk" ? " " + row.target
                      : row.rdev.empty()  ? ""
                                          : " " + row.rdev;
  return path + " " + row.type + detail;
}

/// Builds and merges layers, as `mount-oci` does, and reads the result.
Outcome outcome_of(std::vector<Bytes> const& blobs) {
  std::vector<BuiltLayer> built;
  std::uint64_t reports = 0;
  for (auto const& blob : blobs) {
    auto layer = build_layer(Memory(blob));
    if (!layer) return {"Refused", layer.error().message(), {}, {}};
    reports += layer->layer.reports.count();
    built.push_back(*std::move(layer));
  }
  std::vector<MergeInput> inputs;
  for (auto const& layer : built) inputs.push_back({&layer.layer, device_of(layer.index)});
  auto const merged = merge(inputs);
  if (!merged) FAIL(merged.error().message());
  reports += merged->reports.count();
  std::vector<Bytes> archives;
  for (auto const layer : merged->layers) {
    auto const& blob = blobs[layer];
    auto const packed = blob.size() > 1 && blob[0] == std::byte{0x1f} && blob[1] == std::byte{0x8b};
    archives.push_back(packed ? gunzip(blob) : blob);
  }
  Outcome outcome{reports == 0 ? "Served" : "Reported", {}, {}, {}};
  outcome.rows = Lister(merged->tree, archives, Show::nothing).rows();
  for (auto const& [path, row] : outcome.rows) {
    if (path != "/") outcome.files.push_back(line(path, row));
  }
  return outcome;
}

/// The first word of the last column of each row of the document, by the row's name.
std::map<std::string, std::string> verdicts_of_the_document() {
  std::istringstream in{
      std::string(as_text(read_file(test_data("/../../doc/formats/oddities.md"))))};
  std::map<std::string, std::string> verdicts;
  for (std::string text; std::getline(in, text);) {
    if (!text.starts_with("| `")) continue;
    auto const name = text.substr(3, text.find('`', 3) - 3);
    INFO(name);
    auto const last = text.rfind(" | ");
    REQUIRE(last != std::string::npos);
    auto const word = text.substr(last + 3);
    CHECK(verdicts.emplace(name, word.substr(0, word.find_first_of(": "))).second);
  }
  return verdicts;
}

using Files = std::vector<std::string>;

struct Case {
  std::vector<Bytes> layers;
  Files files{};  ///< of what is not refused
  std::function<void(Rows const&)> more = [](Rows const&) {};
};

Bytes changed(Bytes bytes, std::size_t at, std::string_view text) {
  std::ranges::copy(as_bytes(text), bytes.begin() + static_cast<std::ptrdiff_t>(at));
  return bytes;
}

Bytes cut(Bytes bytes, std::size_t size) {
  bytes.resize(size);
  return bytes;
}

Bytes joined(Bytes first, Bytes const& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

/// A header with other bytes at `at`, its checksum right.
Bytes header(testing::TarHeader const& fields, std::size_t at, std::string_view text) {
  auto block = changed(testing::header_block(fields, 0), at, text);
  testing::seal(block);
  return block;
}

TarMaker with_pax(std::vector<std::pair<std::string, std::string>> const& records,
                  char typeflag = 'x') {
  TarMaker maker;
  maker.pax(records, typeflag);
  return maker;
}

/// A file with one attribute.
Bytes with_xattr(std::string const& name, std::size_t size) {
  return with_pax({{"SCHILY.xattr." + name, std::string(size, 'v')}}).file("f").end().bytes();
}

/// A sparse file by its PAX 0.1 map.
TarMaker sparse(std::string const& map, std::string const& size, std::string_view data) {
  return with_pax({{"GNU.sparse.map", map}, {"GNU.sparse.size", size}}).file("s", data);
}

Bytes signed_checksum() {
  auto block = testing::header_block({.name = "\xfc", .size = 0}, 0);
  auto const sum = std::stoul(std::string(as_text(std::span(block).subspan(148, 6))), nullptr, 8);
  testing::put_number(block, 148, 6, sum - 256);
  return joined(block, Bytes(1024));
}

Bytes many_xattrs() {
  std::vector<std::pair<std::string, std::string>> records;
  for (char i = '0'; i < '5'; ++i) {
    records.emplace_back(std::string("SCHILY.xattr.user.") + i, std::string(60000, 'v'));
  }
  return with_pax(records).file("f").end().bytes();
}

Bytes gzipped(Bytes const& content) {
  return testing::gzip_member({content});
}

TarMaker const one = TarMaker().file("a", "x");  // 1024 bytes
TarMaker const base =
    TarMaker().dir("d").file("d/old", "o").file("gone", "g").dir("e").file("e/old", "o").end();
std::string const long_name(256, 'n');
std::string const long_target(4096, 't');

std::map<std::string, Case> archive_cases() {
  auto const whole = TarMaker(one).end().bytes();
  return {
      {"empty", {{Bytes()}}},
      {"no-end-marker", {{one.bytes()}, {"/a reg 1"}}},
      {"no-padding", {{cut(one.bytes(), 513)}, {"/a reg 1"}}},
      {"cut-data", {{cut(TarMaker().file("a", "xyz").bytes(), 514)}}},
      {"cut-header", {{cut(whole, 1024 + 100)}, {"/a reg 1"}}},
      {"garbage-after-end", {{joined(whole, to_bytes("garbage"))}, {"/a reg 1"}}},
      {"concatenated", {{joined(whole, TarMaker().file("b").end().bytes())}, {"/a reg 1"}}},
      {"lone-zero-block", {{TarMaker(one).zero_block().file("b").end().bytes()}}},
      {"bad-checksum", {{changed(whole, 0, "b")}}},
      {"signed-checksum", {{signed_checksum()}, {"/\xfc reg 0"}}},
      {"v7-header",
       {{TarMaker()
             .member({.name = "d/", .typeflag = '\0', .magic = ""})
             .member({.name = "d/f", .typeflag = '\0', .magic = ""}, "x")
             .end()
             .bytes()},
        {"/d dir", "/d/f reg 1"}}},
      {"bad-number", {{header({.name = "a"}, 100, "zzzzzzz")}}},
      {"size-too-big", {{with_pax({{"size", "9223372036854775807"}}).file("a").end().bytes()}}},
      {"extension-too-long",
       {{TarMaker().member({.name = "x", .typeflag = 'x', .size = 2 << 20}).bytes()}}},
      {"extension-alone", {{with_pax({{"uid", "1"}}).end().bytes()}}},
      {"pax-bad-record",
       {{TarMaker().member({.name = "x", .typeflag = 'x'}, "99 uid=1\n").file("a").end().bytes()}}},
      {"pax-global",
       {{with_pax({{"uid", "7"}}, 'g').file("a").file("b").end().bytes()},
        {"/a reg 0", "/b reg 0"},
        [](Rows const& rows) { CHECK((rows.at("/a").uid == 7 && rows.at("/b").uid == 7)); }}},
      {"pax-global-xattr",
       {{with_pax({{"SCHILY.xattr.user.a", "1"}}, 'g').file("a").end().bytes()},
        {"/a reg 0"},
        [](Rows const& rows) { CHECK(rows.at("/a").xattrs.empty()); }}},
      {"gzip-members",
       {{joined(gzipped(cut(whole, 700)), gzipped(Bytes(whole.begin() + 700, whole.end())))},
        {"/a reg 1"}}},
      {"gzip-trailing-zeros", {{joined(gzipped(whole), Bytes(700))}, {"/a reg 1"}}},
      {"gzip-bad-crc", {{changed(gzipped(whole), gzipped(whole).size() - 8, "crc!")}}},
      {"zstd", {{joined(to_bytes("\x28\xb5\x2f\xfd"), Bytes(100))}}},
  };
}

std::map<std::string, Case> name_cases() {
  return {
      {"absolute-name",
       {{TarMaker().file("/etc/a").file("./etc/b").file("etc//c").end().bytes()},
        {"/etc dir", "/etc/a reg 0", "/etc/b reg 0", "/etc/c reg 0"}}},
      {"dot-dot",
       {{TarMaker().file("../../etc/a").file("x/../b").end().bytes()},
        {"/b reg 0", "/etc dir", "/etc/a reg 0"}}},
      {"empty-name", {{TarMaker().file("", "data").file("a").end().bytes()}, {"/a reg 0"}}},
      {"root-as-file", {{TarMaker().file("./", "data").file("a").end().bytes()}, {"/a reg 0"}}},
      {"long-name",
       {{with_pax({{"path", long_name}})
             .file("x", "data")
             .pax({{"path", "d/" + long_name + "/below"}})
             .file("x")
             .pax({{"linkpath", long_name}})
             .symlink("s", "x")
             .file("s/through")
             .file(std::string(100, 'n'))
             .end()
             .bytes()},
        {"/d dir", "/" + std::string(100, 'n') + " reg 0", "/s lnk " + long_name}}},
      {"long-path",
       {{with_pax({{"path", "d/" + std::string(4095, '/') + "x"}})
             .file("x", "data")
             .file("a")
             .end()
             .bytes()},
        {"/a reg 0"}}},
      {"name-bytes", {{TarMaker().file("\xff\n\x01").end().bytes()}, {"/\xff\n\x01 reg 0"}}},
      {"duplicate", {{TarMaker(one).file("a", "yz").end().bytes()}, {"/a reg 2"}}},
      {"directory-twice",
       {{TarMaker().dir("d", 0700).file("d/a").dir("d", 0711).end().bytes()},
        {"/d dir", "/d/a reg 0"},
        [](Rows const& rows) { CHECK(rows.at("/d").mode == 0711); }}},
      {"directory-over-file",
       {{TarMaker(one).dir("a").file("a/b").end().bytes()}, {"/a dir", "/a/b reg 0"}}},
      {"file-over-directory",
       {{TarMaker().file("a/b").file("a", "x").end().bytes()}, {"/a reg 1"}}},
      {"missing-parent",
       {{TarMaker().dir("d", 0700).end().bytes(), TarMaker().file("d/a").file("e/a").end().bytes()},
        {"/d dir", "/d/a reg 0", "/e dir", "/e/a reg 0"},
        [](Rows const& rows) {
          CHECK(rows.at("/d").mode == 0700);
          CHECK((rows.at("/e").mode == 0755 && rows.at("/e").mtime == 0));
        }}},
      {"file-as-parent",
       {{TarMaker(one).file("a/b", "data").file("c").end().bytes()}, {"/a reg 1", "/c reg 0"}}},
      {"symlink-as-parent",
       {{TarMaker().symlink("s", "/../usr").file("s/a").end().bytes()},
        {"/s lnk /../usr", "/usr dir", "/usr/a reg 0"}}},
      {"symlink-loop",
       {{TarMaker().symlink("s", "s").file("s/a", "data").file("c").end().bytes()},
        {"/c reg 0", "/s lnk s"}}},
  };
}

std::map<std::string, Case> link_cases() {
  auto const linked = [](std::string const& a, std::string const& b, std::uint32_t links) {
    return [=](Rows const& rows) {
      CHECK(rows.at(a) == rows.at(b));
      CHECK(rows.at(a).nlink == links);
    };
  };
  return {
      {"hard-link-before-target",
       {{TarMaker().hard_link("b", "a").file("a", "x").end().bytes()},
        {"/a reg 1", "/b reg 1"},
        linked("/a", "/b", 2)}},
      {"hard-link-to-missing", {{TarMaker(one).hard_link("b", "c").end().bytes()}, {"/a reg 1"}}},
      {"hard-link-to-self", {{TarMaker(one).hard_link("b", "b").end().bytes()}, {"/a reg 1"}}},
      {"hard-link-as-parent",
       {{TarMaker(one).hard_link("d", "c").file("d/f").end().bytes()},
        {"/a reg 1", "/d dir", "/d/f reg 0"}}},
      {"hard-link-to-directory",
       {{TarMaker().dir("d").hard_link("b", "d").end().bytes()}, {"/d dir"}}},
      {"hard-link-to-lower",
       {{TarMaker(one).end().bytes(), TarMaker().hard_link("b", "a").end().bytes()},
        {"/a reg 1", "/b reg 1"},
        linked("/a", "/b", 2)}},
      {"hard-link-replaced",
       {{TarMaker(one).hard_link("b", "a").file("a", "yz").end().bytes()},
        {"/a reg 2", "/b reg 1"}}},
      {"hard-link-to-long-name",
       {{with_pax({{"linkpath", long_name}}).hard_link("b", "x").file("a").end().bytes()},
        {"/a reg 0"}}},
      {"link-with-size",
       {{TarMaker(one)
             .member({.name = "b", .typeflag = '1', .size = 700, .link = "a"})
             .member({.name = "s", .typeflag = '2', .size = 700, .link = "a"})
             .member({.name = "d", .typeflag = '5', .size = 700})
             .end()
             .bytes()},
        {"/a reg 1", "/b reg 1", "/d dir", "/s lnk a"}}},
      {"symlink-empty", {{TarMaker().symlink("s", "").file("a").end().bytes()}, {"/a reg 0"}}},
      {"symlink-long",
       {{with_pax({{"linkpath", long_target}}).symlink("s", "x").file("a").end().bytes()},
        {"/a reg 0"}}},
  };
}

std::map<std::string, Case> whiteout_cases() {
  auto const over = [](TarMaker maker) {
    return std::vector<Bytes>{base.bytes(), maker.end().bytes()};
  };
  std::string const removed(255, 'r');
  return {
      {"whiteout-bare", {over(TarMaker().file("d/.wh."))}},
      {"whiteout-dots", {over(TarMaker().file("d/.wh.."))}},
      {"whiteout-of-nothing",
       {over(TarMaker().file(".wh.none").file("x/.wh.y")),
        {"/d dir", "/d/old reg 1", "/e dir", "/e/old reg 1", "/gone reg 1", "/x dir"}}},
      {"whiteout-and-file",
       {over(
            TarMaker().file("gone", "new").file(".wh.gone").file("d/.wh.old").file("d/old", "new")),
        {"/d dir", "/d/old reg 3", "/e dir", "/e/old reg 1", "/gone reg 3"}}},
      {"whiteout-and-directory",
       {over(TarMaker().file("d/new").file(".wh.d").file(".wh.e").dir("e").file(".wh.gone")),
        {"/d dir", "/d/new reg 0", "/e dir"}}},
      {"opaque-in-the-middle",
       {over(TarMaker().file("d/a").file("d/.wh..wh..opq").file("d/b")),
        {"/d dir", "/d/a reg 0", "/d/b reg 0", "/e dir", "/e/old reg 1", "/gone reg 1"}}},
      {"opaque-root", {over(TarMaker().file("a").file(".wh..wh..opq")), {"/a reg 0"}}},
      {"whiteout-long",
       {{with_pax({{"path", removed}}).file("x", "data").end().bytes(),
         with_pax({{"path", ".wh." + removed}}).file("x").file("a").end().bytes()},
        {"/a reg 0"}}},
      {"whiteout-with-content",
       {over(TarMaker().file(".wh.gone", "content").dir(".wh.d").file(".wh.e/x")),
        {"/.wh.e dir", "/.wh.e/x reg 0", "/e dir", "/e/old reg 1"}}},
      {"whiteout-below-file",
       {over(TarMaker().file("e").file("e/.wh.old")),
        {"/d dir", "/d/old reg 1", "/e reg 0", "/gone reg 1"}}},
      {"aufs-files",
       {over(TarMaker().file(".wh..wh.plnk/1.2", "data").dir(".wh..wh.orph").file("a")),
        {"/a reg 0", "/d dir", "/d/old reg 1", "/e dir", "/e/old reg 1", "/gone reg 1"}}},
  };
}

std::map<std::string, Case> type_cases() {
  auto const device = [](std::uint64_t major, std::uint64_t minor) {
    return TarMaker()
        .member({.name = "n", .typeflag = '3', .dev_major = major, .dev_minor = minor})
        .file("a")
        .end()
        .bytes();
  };
  return {
      {"device",
       {{TarMaker()
             .member({.name = "b", .typeflag = '4', .dev_major = 8, .dev_minor = 1})
             .member({.name = "c", .typeflag = '3', .dev_major = 4095, .dev_minor = 1048575})
             .member({.name = "p", .typeflag = '6'})
             .end()
             .bytes()},
        {"/b blk 8:1", "/c chr 4095:1048575", "/p fifo"}}},
      {"device-zero", {{device(0, 0)}, {"/a reg 0", "/n chr 0:0"}}},
      {"device-too-big", {{device(4096, 0)}, {"/a reg 0"}}},
      {"unknown-type",
       {{TarMaker().member({.name = "u", .typeflag = 'Z'}, "data").file("a").end().bytes()},
        {"/a reg 0"}}},
      {"volume-label",
       {{TarMaker()
             .member({.name = "label", .typeflag = 'V'})
             .member({.name = "m", .typeflag = 'M'}, "data")
             .file("a")
             .end()
             .bytes()},
        {"/a reg 0"}}},
      {"contiguous-file",
       {{TarMaker().member({.name = "c", .typeflag = '7'}, "data").end().bytes()}, {"/c reg 4"}}},
      {"mode-bits",
       {{TarMaker().file("a", "", 0104755).end().bytes()},
        {"/a reg 0"},
        [](Rows const& rows) { CHECK(rows.at("/a").mode == 04755); }}},
      {"negative-time",
       {{with_pax({{"mtime", "-1.25"}}).file("a").end().bytes()},
        {"/a reg 0"},
        [](Rows const& rows) {
          CHECK((rows.at("/a").mtime == -2 && rows.at("/a").nsec == 750'000'000));
        }}},
      {"owner-base-256",
       {{TarMaker().member({.name = "a", .uid = 0xffffffff, .gid = 1 << 30}).end().bytes()},
        {"/a reg 0"},
        [](Rows const& rows) {
          CHECK((rows.at("/a").uid == ~0u && rows.at("/a").gid == 1 << 30));
        }}},
      {"owner-too-big",
       {{TarMaker()
             .member({.name = "u", .uid = std::uint64_t{1} << 32}, "data")
             .file("a")
             .end()
             .bytes()},
        {"/a reg 0"}}},
  };
}

std::map<std::string, Case> attribute_cases() {
  auto const attributes = [](std::map<std::string, std::string> const& expected) {
    return [=](Rows const& rows) {
      auto const equal = rows.at("/f").xattrs == expected;  // not in the macro, which prints both
      CHECK(equal);
    };
  };
  std::string const binary("a\0=\nb", 5);
  std::map<std::string, std::string> four;
  for (char i = '0'; i < '4'; ++i) four[std::string("user.") + i] = std::string(60000, 'v');
  return {
      {"xattr-binary",
       {{with_pax({{"SCHILY.xattr.user.a", binary}}).file("f").end().bytes()},
        {"/f reg 0"},
        attributes({{"user.a", binary}})}},
      {"xattr-two-forms",
       {{with_pax({{"SCHILY.xattr.user.a", "raw"}, {"LIBARCHIVE.xattr.user.a", "eHg"}})
             .file("f")
             .end()
             .bytes()},
        {"/f reg 0"},
        attributes({{"user.a", "raw"}})}},
      {"xattr-bad-base64",
       {{with_pax({{"LIBARCHIVE.xattr.user.a", "!"}}).file("f").end().bytes()}}},
      {"xattr-large", {{with_xattr("user.a", 65536)}, {"/f reg 0"}, attributes({})}},
      {"xattr-many", {{many_xattrs()}, {"/f reg 0"}, attributes(four)}},
      {"xattr-long-name",
       {{with_xattr("user." + std::string(256, 'n'), 1)}, {"/f reg 0"}, attributes({})}},
      {"xattr-namespace", {{with_xattr("os2.a", 1)}, {"/f reg 0"}, attributes({})}},
  };
}

std::map<std::string, Case> sparse_cases() {
  auto const holds = [](std::string const& content) {
    return [=](Rows const& rows) {
      CHECK(rows.at("/s").sha256 == digest_of(as_bytes(content)).hex());
    };
  };
  auto const byte_at = [](std::size_t at, std::size_t size) {
    std::string content(size, '\0');
    content[at] = 'x';
    return content;
  };
  auto dirty = sparse("0,1", "2000", "x").bytes();
  dirty.back() = std::byte{1};
  auto const version = [](std::string const& major) {
    return with_pax({{"GNU.sparse.major", major}, {"GNU.sparse.realsize", "9"}});
  };
  return {
      {"sparse-odd",
       {{sparse("50000,1", "60000", "x").end().bytes()},
        {"/s reg 60000"},
        holds(byte_at(50000, 60000))}},
      {"sparse-huge",
       {{sparse("549755813889,1", "1099511627776", "x").end().bytes()}, {"/s reg 1099511627776"}}},
      {"sparse-shared-padding",
       {{joined(dirty, Bytes(1024))}, {"/s reg 2000"}, holds(byte_at(0, 2000))}},
      {"sparse-empty-segments",
       {{sparse("0,0,700,1,800,0,2000,0", "2000", "x").end().bytes()},
        {"/s reg 2000"},
        holds(byte_at(700, 2000))}},
      {"sparse-bridge",
       {{sparse("0,1,1000,0,1000,1", "2000", "xx").end().bytes()},
        {"/s reg 2000"},
        holds("x" + std::string(999, '\0') + "x" + std::string(999, '\0'))}},
      {"sparse-too-odd",
       {{with_pax({{"GNU.sparse.map", "1,16777216"}, {"GNU.sparse.size", "20000000"}})
             .member({.name = "s", .size = 16777216})
             .bytes()}}},
      {"sparse-overlap", {{sparse("0,2,1,1", "2000", "xyz").end().bytes()}}},
      {"sparse-version", {{version("2").file("s", "data").file("a").end().bytes()}, {"/a reg 0"}}},
      {"sparse-not-gnu",
       {{TarMaker().member({.name = "s", .typeflag = 'S'}, "data").end().bytes()}}},
  };
}

TEST_CASE("Each oddity of an archive comes out as the document says", "[tarindex][oddities]") {
  auto document = verdicts_of_the_document();
  CHECK(document.size() > 70);
  for (auto const& cases : {archive_cases(), name_cases(), link_cases(), whiteout_cases(),
                            type_cases(), attribute_cases(), sparse_cases()}) {
    for (auto const& [name, test] : cases) {
      INFO(name);
      auto const outcome = outcome_of(test.layers);
      INFO(outcome.error);
      CHECK(outcome.verdict == document[name]);
      if (outcome.verdict == "Refused") {
        CHECK_FALSE(outcome.error.empty());
      } else {
        CHECK(outcome.files == test.files);
        test.more(outcome.rows);
      }
      document.erase(name);
    }
  }
  for (auto const& [name, verdict] : document) FAIL_CHECK(name << " has no test");
}

}  // namespace oddities_test
}  // namespace erofs_oci::tarindex
