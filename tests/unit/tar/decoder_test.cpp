// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tar/decoder.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <random>

#include "support.hpp"

namespace erofs_oci::tar {
namespace decoder_test {

using testing::TarMaker;

/// One archive with a member of every kind.
Bytes everything() {
  TarMaker maker;
  maker.pax({{"mtime", "1600000000.5"}}, 'g').dir("d/").file("d/a", "hello");
  maker.pax({{"path", "d/" + std::string(200, 'n')}, {"SCHILY.xattr.user.x", "1"}});
  maker.file("d/short", std::string(1300, 'b'));
  maker.gnu_long('K', std::string(150, 't')).gnu_long('L', "d/" + std::string(150, 's'));
  maker.symlink("d/s", "t").hard_link("d/h", "d/a");
  maker.member({.name = "d/null", .typeflag = '3', .dev_major = 1, .dev_minor = 3});
  maker.member({.name = "label", .typeflag = 'V', .magic = TarMaker::gnu_magic()});
  maker.member({.name = "odd", .typeflag = 'Q'}, std::string(600, 'q'));
  maker.pax({{"GNU.sparse.major", "1"},
             {"GNU.sparse.minor", "0"},
             {"GNU.sparse.name", "holes"},
             {"GNU.sparse.realsize", "5000"}});
  std::string map = "1\n1024\n700\n";
  map.resize(512);
  maker.file("GNUSparseFile.1/holes", map + std::string(700, 'h'));
  return maker.end().bytes();
}

TEST_CASE("An archive in any pieces gives the same", "[tar][decoder][property]") {
  auto archive = everything();
  auto const whole = decode(archive);
  REQUIRE(whole.error.empty());
  REQUIRE(whole.entries.size() == 7);
  REQUIRE(whole.reports.size() == 2);

  rc::prop("for all cuts of an archive, damaged or not", [&] {
    auto damaged = archive;
    auto const flips = *rc::gen::inRange(0, 3);
    for (int i = 0; i < flips; ++i) {
      auto const at = *rc::gen::inRange<std::size_t>(0, damaged.size());
      damaged[at] ^= static_cast<std::byte>(*rc::gen::inRange(0, 256));
    }
    auto const seed = *rc::gen::arbitrary<unsigned>();
    auto const most = *rc::gen::element<std::size_t>(1, 7, 511, 512, 513, 1024, 5000);
    std::mt19937 random(seed);

    auto const pieces = decode_in_pieces(
        damaged, [&] { return std::uniform_int_distribution<std::size_t>(1, most)(random); });

    RC_ASSERT(pieces == decode(damaged));
  });
}

TEST_CASE("A fixture in any pieces gives the same", "[tar][decoder][fixture]") {
  for (auto const& path : archives()) {
    INFO(path);
    auto const archive = read_file(path);
    std::mt19937 random(7);
    std::uniform_int_distribution<std::size_t> lengths(1, 1500);
    CHECK(decode_in_pieces(archive, [&] { return lengths(random); }) == decode(archive));
  }
}

TEST_CASE("A truncated archive is an error, or ends behind a member's data",
          "[tar][decoder][error]") {
  auto const archive = everything();
  auto const whole = decode(archive);
  auto const first_zero = archive.size() - 1024;

  for (std::size_t length = 0; length < archive.size(); ++length) {
    INFO("length " << length);
    auto const cut = decode(std::span(archive).first(length));
    auto const n = cut.entries.size();
    REQUIRE(n <= whole.entries.size());
    REQUIRE(std::equal(cut.entries.begin(), cut.entries.end(), whole.entries.begin()));
    if (cut.error.empty()) {
      auto const has_data = [&](Entry const& entry) {
        return std::ranges::all_of(entry.extents, [&](Extent const& part) {
          return part.tar_offset + part.length <= length;
        });
      };
      REQUIRE((length % 512 == 0 || length > first_zero + 512 ||
               (n > 0 && has_data(cut.entries.back()))));
    } else {
      REQUIRE(cut.code == Errc::truncated);
      REQUIRE(cut.error.find("offset " + std::to_string(length)) != std::string::npos);
    }
    if (length >= first_zero && length % 512 == 0) REQUIRE(n == whole.entries.size());
  }
}

TEST_CASE("The data of a member lie right behind its header", "[tar][decoder]") {
  auto const decoded = decode(TarMaker().file("a", "x").file("b", "data").end().bytes());

  REQUIRE(decoded.entries.size() == 2);
  CHECK(decoded.entries[0].extents == std::vector<Extent>{{0, 512, 1}});
  CHECK(decoded.entries[1].extents == std::vector<Extent>{{0, 1536, 4}});
}

TEST_CASE("The last member is complete without padding", "[tar][decoder]") {
  auto const archive = TarMaker().file("whole", "x").file("last", std::string(700, 'y')).bytes();
  auto const padded = decode(archive);
  REQUIRE(padded.entries.size() == 2);

  for (std::size_t length = 1024 + 512 + 700; length < archive.size(); ++length) {
    auto const bare = decode(std::span(archive).first(length));
    CHECK(bare.error.empty());
    CHECK(bare.entries == padded.entries);
    CHECK(bare.reports.size() == 1);
  }
}

TEST_CASE("Data that are cut short are an error that names the member", "[tar][decoder][error]") {
  auto const archive = TarMaker().file("whole", "x").file("cut", std::string(700, 'y')).bytes();

  auto const cut = decode(std::span(archive).first(1024 + 512 + 699));

  CHECK(cut.entries.size() == 1);
  CHECK(cut.code == Errc::truncated);
  CHECK(cut.error.find("member 'cut' at offset 1024") != std::string::npos);
}

TEST_CASE("A flipped byte never breaks the decoder", "[tar][decoder][error]") {
  auto const archive = everything();
  std::mt19937 random(11);

  for (int round = 0; round < 4000; ++round) {
    auto bad = archive;
    auto const at = random() % bad.size();
    bad[at] = static_cast<std::byte>(random());
    auto const block = at / 512 * 512;  // sealing lets the damage past the checksum
    Bytes header(bad.begin() + static_cast<std::ptrdiff_t>(block),
                 bad.begin() + static_cast<std::ptrdiff_t>(block + 512));
    if (round % 2 == 0) testing::seal(header);
    std::ranges::copy(header, bad.begin() + static_cast<std::ptrdiff_t>(block));

    auto const decoded = decode(bad);

    for (auto const& entry : decoded.entries) {
      for (auto const& extent : entry.extents) {
        REQUIRE(extent.tar_offset + extent.length <= bad.size());
        REQUIRE(extent.file_offset + extent.length <= entry.size);
      }
    }
  }
}

TEST_CASE("The archive ends with two zero blocks", "[tar][decoder]") {
  auto const paths = [](TarMaker const& maker) {
    std::vector<std::string> out;
    auto const decoded = decode(maker.bytes());
    INFO(decoded.error);
    CHECK(decoded.error.empty());
    for (auto const& entry : decoded.entries) out.push_back(entry.path);
    return out;
  };
  auto const just_a = std::vector<std::string>{"a"};
  CHECK(paths(TarMaker().file("a").end().file("b")) == just_a);
  CHECK(paths(TarMaker().file("a").end().raw(to_bytes("garbage"))) == just_a);
  CHECK(paths(TarMaker().file("a").zero_block()) == just_a);
  CHECK(paths(TarMaker().file("a")) == just_a);
  CHECK(paths(TarMaker().end()).empty());
  CHECK(paths(TarMaker()).empty());
}

TEST_CASE("A lone zero block before a header is an error", "[tar][decoder][error]") {
  auto const decoded = decode(TarMaker().file("a").zero_block().file("b").end().bytes());

  CHECK(decoded.code == Errc::corrupt);
  CHECK(decoded.error.find("lone zero block at offset 512") != std::string::npos);
}

TEST_CASE("An extended header needs a member", "[tar][decoder][error]") {
  CHECK(decode(TarMaker().pax({{"uid", "1"}}).end().bytes()).code == Errc::corrupt);
  CHECK(decode(TarMaker().pax({{"uid", "1"}}).bytes()).code == Errc::truncated);
  CHECK(decode(TarMaker().gnu_long('L', "x").bytes()).code == Errc::truncated);
  CHECK(decode(TarMaker().pax({{"uid", "1"}}, 'g').end().bytes()).error.empty());
}

TEST_CASE("Old headers are understood", "[tar][decoder]") {
  auto const nul = only_entry(TarMaker().member({.name = "n", .typeflag = '\0'}, "x").bytes());
  CHECK(nul.type == Type::regular);
  CHECK(nul.size == 1);

  auto const slash =
      only_entry(TarMaker().member({.name = "d/", .typeflag = '\0', .magic = ""}).bytes());
  CHECK(slash.type == Type::directory);

  auto const file = only_entry(TarMaker().member({.name = "f/", .typeflag = '0'}, "x").bytes());
  CHECK(file.type == Type::regular);

  CHECK(only_entry(TarMaker().member({.name = "c", .typeflag = '7'}, "x").bytes()).size == 1);
}

TEST_CASE("Only files have data", "[tar][decoder]") {
  auto const type = GENERATE('1', '2', '3', '4', '5', '6');
  TarMaker maker;
  maker.member({.name = "x", .typeflag = type, .size = 4096, .link = "t"}).file("y").end();

  auto const decoded = decode(maker.bytes());

  CHECK(decoded.error.empty());
  REQUIRE(decoded.entries.size() == 2);
  CHECK(decoded.entries[0].size == 0);
  CHECK(decoded.entries[0].extents.empty());
}

TEST_CASE("What is passed over is reported", "[tar][decoder]") {
  auto const type = GENERATE('V', 'M', 'D', 'N', 'X', '8');
  TarMaker maker;
  maker.member({.name = "odd", .typeflag = type}, std::string(700, 'x')).file("next").end();

  auto const decoded = decode(maker.bytes());

  CHECK(decoded.error.empty());
  REQUIRE(decoded.entries.size() == 1);
  CHECK(decoded.entries[0].path == "next");
  REQUIRE(decoded.reports.size() == 1);
  CHECK(decoded.reports[0].text.find("'odd'") != std::string::npos);
}

TEST_CASE("A million oddities keep a thousand reports", "[tar][decoder]") {
  Reports reports;
  for (std::uint64_t i = 0; i < 5000; ++i) reports.add(i, "x");
  CHECK(reports.count() == 5000);
  CHECK(reports.list().size() == Reports::kept);
}

TEST_CASE("Sizes near 2^63 do not overflow", "[tar][decoder][error]") {
  auto const type = GENERATE('0', 'D');
  auto const code = [&](std::uint64_t size) {
    return decode(TarMaker().member({.name = "bomb", .typeflag = type, .size = size}, "x").bytes())
        .code;
  };
  CHECK(code(max_offset) == Errc::corrupt);
  CHECK(code(max_offset - 511) == Errc::corrupt);
  CHECK(code(max_offset - 512) == Errc::corrupt);
  CHECK(code(max_offset - 1023) == Errc::truncated);  // would just fit
}

TEST_CASE("A member of 2^62 bytes is cut short, not read", "[tar][decoder][error]") {
  auto const size = std::uint64_t{1} << 62;
  auto const archive = TarMaker().member({.name = "bomb", .size = size}, "x").bytes();
  CHECK(decode(archive).code == Errc::truncated);

  Decoder decoder;
  auto const none = [](Entry&&) -> Result<void> { return {}; };
  REQUIRE(decoder.push(std::span(archive).first(512), none));
  REQUIRE(decoder.skippable() == size);
  decoder.skip(size);
  auto count = 0;
  CHECK(decoder.finish([&](Entry&& entry) -> Result<void> {
    ++count;
    CHECK(entry.size == size);
    return {};
  }));
  CHECK(count == 1);
}

TEST_CASE("Extended headers beyond the limit are refused", "[tar][decoder][error]") {
  auto const type = GENERATE('x', 'g', 'L', 'K');
  auto const bomb = TarMaker().member({.name = "b", .typeflag = type, .size = 1u << 30}).bytes();
  CHECK(decode(bomb).code == Errc::unsupported);
  auto const code = [&](std::uint64_t size) {
    return decode(TarMaker().member({.name = "b", .typeflag = type, .size = size}).bytes()).code;
  };
  CHECK(code(max_extension_size + 1) == Errc::unsupported);
  CHECK(code(max_extension_size) == Errc::truncated);
}

/// Why the first of two members is passed over.
std::string passed_over(TarMaker maker) {
  auto const decoded = decode(maker.file("next", "x").end().bytes());
  CHECK(decoded.error.empty());
  REQUIRE(decoded.entries.size() == 1);
  CHECK(decoded.entries[0].path == "next");
  REQUIRE(decoded.reports.size() == 1);
  auto const& text = decoded.reports[0].text;
  return text.substr(text.find(": ") + 2);
}

TEST_CASE("Members that no file system could hold are passed over", "[tar][decoder]") {
  auto const long_name = std::string(max_path_length + 1, 'n');
  std::string const too_long = "passed over: name or link target of more than 4095 bytes";
  CHECK(passed_over(TarMaker().pax({{"path", long_name}}).file("x", "data")) == too_long);
  CHECK(passed_over(TarMaker().gnu_long('L', long_name).file("x", "data")) == too_long);
  CHECK(passed_over(TarMaker().gnu_long('K', long_name).symlink("x", "y")) == too_long);
  CHECK(decode(TarMaker().pax({{"path", long_name.substr(1)}}).file("x").bytes()).reports.empty());

  CHECK(passed_over(TarMaker().file("", "data")) == "passed over: no name");
  CHECK(passed_over(TarMaker().symlink("s", "")) == "passed over: no link target");
  CHECK(passed_over(TarMaker().hard_link("h", "")) == "passed over: no link target");

  CHECK(passed_over(TarMaker().pax({{"uid", "4294967296"}}).file("x", "data")) ==
        "passed over: uid 4294967296 does not fit 32 bits");
  CHECK(only_entry(TarMaker().pax({{"gid", "4294967295"}}).file("x").bytes()).gid == 4294967295u);
}

TEST_CASE("An error of the visitor ends the decoding and stays", "[tar][decoder][error]") {
  auto const archive = TarMaker().file("a").file("b").end().bytes();
  Decoder decoder;
  auto calls = 0;
  auto const refuse = [&](Entry&&) -> Result<void> {
    ++calls;
    return fail(Errc::stopping, "enough");
  };

  auto const first = decoder.push(archive, refuse);
  auto const second = decoder.push(archive, refuse);

  REQUIRE_FALSE(first);
  CHECK(first.error().code == Errc::stopping);
  REQUIRE_FALSE(second);
  CHECK_FALSE(decoder.finish(refuse));
  CHECK(calls == 1);
}

}  // namespace decoder_test
}  // namespace erofs_oci::tar
