// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tar/header.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <limits>
#include <string>

#include <erofs_oci/testing/tar_maker.hpp>

namespace erofs_oci::tar {
namespace header_test {

using testing::TarHeader;

std::optional<std::int64_t> number(std::string const& text) {
  return field_number(as_bytes(text));
}

std::string raw(std::initializer_list<int> bytes) {
  std::string text;
  for (auto const byte : bytes) text += static_cast<char>(byte);
  return text;
}

Result<Header> decode(Bytes const& block) {
  return decode_header(Block(block));
}

TEST_CASE("A number field is octal, padded on either side", "[tar][header]") {
  CHECK(number(std::string("0000644\0", 8)) == 0644);
  CHECK(number("    644 ") == 0644);
  CHECK(number(std::string("644 \0\0\0\0", 8)) == 0644);
  CHECK(number("77777777") == 077777777);  // no terminator: star
  CHECK(number(std::string(8, '\0')) == 0);
  CHECK(number("        ") == 0);
  CHECK(number("   -12 ") == -012);
}

TEST_CASE("A number field that is no number is none", "[tar][header][error]") {
  CHECK_FALSE(number("0000648 "));
  CHECK_FALSE(number("0x00644 "));
  CHECK_FALSE(number("6-44    "));
  CHECK_FALSE(number(std::string(24, '7')));
}

TEST_CASE("A number field may be in base-256", "[tar][header]") {
  CHECK(number(raw({0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0})) == 3000000);
  CHECK(number(raw({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xae, 0x80})) ==
        -86400);
  CHECK(number(raw({0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})) ==
        std::numeric_limits<std::int64_t>::max());
  CHECK(number(raw({0xff, 0xff, 0xff, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0})) ==
        std::numeric_limits<std::int64_t>::min());
}

TEST_CASE("A base-256 number beyond 63 bits is none", "[tar][header][error]") {
  CHECK_FALSE(number(raw({0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0})));
  CHECK_FALSE(number(raw({0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})));
  CHECK_FALSE(number(raw({0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})));
}

TEST_CASE("A number that was written is read", "[tar][header][property]") {
  rc::prop("for all sizes below 2^63, octal or base-256", [] {
    auto const shift = *rc::gen::inRange(1, 64);
    auto const value = *rc::gen::arbitrary<std::uint64_t>() >> shift;
    Bytes field(12);
    testing::put_number(field, 0, 11, value);

    auto const read = field_number(field);

    RC_ASSERT(read.has_value());
    RC_ASSERT(static_cast<std::uint64_t>(*read) == value);
  });
}

TEST_CASE("A header yields its fields", "[tar][header]") {
  auto const header = decode(testing::header_block({.name = "a/b",
                                                    .typeflag = '4',
                                                    .mode = 0100644,
                                                    .uid = 5,
                                                    .gid = 70000,
                                                    .mtime = 12,
                                                    .size = std::uint64_t{1} << 40,
                                                    .link = "to",
                                                    .dev_major = 8,
                                                    .dev_minor = 1},
                                                   0));

  REQUIRE(header);
  CHECK(header->name == "a/b");
  CHECK(header->mode == 0644);  // the file type bits some archivers add are dropped
  CHECK(header->uid == 5);
  CHECK(header->gid == 70000);
  CHECK(header->mtime == 12);
  CHECK(header->size == std::uint64_t{1} << 40);
  CHECK(header->link == "to");
  CHECK(header->typeflag == '4');
  CHECK(header->dialect == Dialect::ustar);
  CHECK(header->dev_major == 8);
  CHECK(header->dev_minor == 1);
}

TEST_CASE("Only ustar and star headers have a prefix", "[tar][header]") {
  auto header = TarHeader{.name = "name", .prefix = "pre/fix"};
  CHECK(decode(testing::header_block(header, 0))->name == "pre/fix/name");

  header.magic = testing::TarMaker::gnu_magic();
  CHECK(decode(testing::header_block(header, 0))->name == "name");
  CHECK(decode(testing::header_block(header, 0))->dialect == Dialect::gnu);

  header.magic = "";
  CHECK(decode(testing::header_block(header, 0))->name == "name");
  CHECK(decode(testing::header_block(header, 0))->dialect == Dialect::v7);

  auto star = testing::header_block({.name = "name", .prefix = std::string(131, 'p')}, 0);
  testing::put_text(star, 476, "00000000000 00000000000 ");  // times, where ustar has prefix
  testing::put_text(star, 508, std::string_view("tar\0", 4));
  testing::seal(star);
  CHECK(decode(star)->name == std::string(131, 'p') + "/name");
}

TEST_CASE("Names of a hundred bytes need no NUL", "[tar][header]") {
  auto const header = decode(
      testing::header_block({.name = std::string(100, 'n'), .link = std::string(100, 'l')}, 0));

  REQUIRE(header);
  CHECK(header->name == std::string(100, 'n'));
  CHECK(header->link == std::string(100, 'l'));
}

TEST_CASE("A checksum over signed bytes is as good", "[tar][header]") {
  auto block = testing::header_block({.name = "\xff\xfe\x80"}, 0);
  std::int64_t sum = 0;
  testing::put_text(block, 148, "        ");
  for (auto const byte : block) sum += static_cast<signed char>(byte);
  testing::put_number(block, 148, 6, static_cast<std::uint64_t>(sum));
  block[154] = std::byte{0};

  CHECK(decode(block));
}

TEST_CASE("What pads the checksum does not count", "[tar][header]") {
  auto block = testing::header_block({.name = "file"}, 0);
  for (auto const pad : {' ', '\0'}) {
    block[154] = block[155] = static_cast<std::byte>(pad);
    CHECK(decode(block));
  }
}

TEST_CASE("A number below zero is refused by name, but for a time", "[tar][header][error]") {
  auto const [at, field] = GENERATE(table<std::size_t, std::string>(
      {{100, "mode"}, {108, "uid"}, {116, "gid"}, {124, "size"}, {136, ""}}));
  auto block = testing::header_block({.name = "file"}, 0);
  testing::put_text(block, at, "-000001");
  testing::seal(block);

  auto const header = decode(block);

  INFO(field);
  CHECK(header.has_value() == field.empty());
  if (!header) CHECK(header.error().context.find(field + " field") != std::string::npos);
}

TEST_CASE("A header with any other checksum is refused", "[tar][header][error]") {
  auto const good = testing::header_block({.name = "file"}, 0);
  REQUIRE(decode(good));

  for (std::size_t i = 0; i < good.size(); ++i) {
    auto bad = good;
    bad[i] ^= std::byte{0x01};
    INFO("byte " << i);
    // a digit changed into another padding keeps the sum's value: the two bytes after it
    if (i == 154 || i == 155) continue;
    CHECK_FALSE(decode(bad));
  }
}

TEST_CASE("A header with a field that is no number is refused by name", "[tar][header][error]") {
  auto const [at, field] = GENERATE(table<std::size_t, std::string>(
      {{100, "mode"}, {108, "uid"}, {116, "gid"}, {124, "size"}, {136, "mtime"}}));
  auto block = testing::header_block({.name = "file"}, 0);
  testing::put_text(block, at, "9999");
  testing::seal(block);

  auto const header = decode(block);

  REQUIRE_FALSE(header);
  CHECK(header.error().code == Errc::corrupt);
  CHECK(header.error().context.find("'file': " + field) != std::string::npos);
}

TEST_CASE("Device numbers of other types are not looked at", "[tar][header]") {
  auto block = testing::header_block({.name = "file"}, 0);
  testing::put_text(block, 329, "garbage");
  testing::seal(block);
  CHECK(decode(block));

  block[156] = std::byte{'3'};
  testing::seal(block);
  CHECK_FALSE(decode(block));
}

TEST_CASE("printable() leaves nothing that a terminal would act on", "[tar][header]") {
  CHECK(printable("a b") == "'a b'");
  CHECK(printable("\x1b[31m\n'\\") == "'\\x1b[31m\\x0a\\x27\\x5c'");
  CHECK(printable(std::string(300, 'x')) == "'" + std::string(256, 'x') + "...'");
}

}  // namespace header_test
}  // namespace erofs_oci::tar
