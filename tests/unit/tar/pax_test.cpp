// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tar/pax.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include "support.hpp"

namespace erofs_oci::tar {
namespace pax_test {

using testing::pax_record;
using testing::TarMaker;

TEST_CASE("PAX records are cut by their lengths, not by their bytes", "[tar][pax]") {
  auto const value = std::string("\0a=\n12 path=x\n", 14);

  auto const pax = parse_pax(pax_record("SCHILY.xattr.user.x", value) + pax_record("uid", "7"));

  REQUIRE(pax);
  CHECK(pax->xattrs == std::vector<Xattr>{{"user.x", to_bytes(value)}});
  CHECK(pax->uid.value == 7u);
  CHECK_FALSE(pax->path.present);
}

TEST_CASE("Malformed PAX records are refused", "[tar][pax][error]") {
  auto const text =
      GENERATE(as<std::string>{}, "x", "9 uid=7", "10 uid=7\n", "7 uid=7\n", "0 uid=7\n",
               " uid=7\n", "-8 uid=7\n", "5 =7\n", "6 uid\n", "99999999999999999999 a=b\n",
               "8 uid=7x", "9223372036854775808 a=b\n", "3 \n", "4 a\n", "8\tuid=7\n");
  INFO(text);

  auto const pax = parse_pax(text);

  REQUIRE_FALSE(pax);
  CHECK(pax.error().code == Errc::corrupt);
}

TEST_CASE("PAX values that make no sense are refused", "[tar][pax][error]") {
  auto const [key, value] =
      GENERATE(table<std::string, std::string>({{"size", "-1"},
                                                {"size", "1x"},
                                                {"size", "9223372036854775808"},
                                                {"uid", " 1"},
                                                {"gid", "1.5"},
                                                {"mtime", "now"},
                                                {"mtime", "1.2.3"},
                                                {"mtime", "--1"},
                                                {"mtime", "99999999999999999999"},
                                                {"path", std::string("a\0b", 3)},
                                                {"linkpath", std::string("a\0b", 3)},
                                                {"SCHILY.xattr.", "x"},
                                                {"LIBARCHIVE.xattr.user.%4", "AA=="},
                                                {"LIBARCHIVE.xattr.user.%00", "AA=="},
                                                {"LIBARCHIVE.xattr.user.a", "A"},
                                                {"LIBARCHIVE.xattr.user.a", "A*=="},
                                                {"GNU.sparse.map", "1,2,3"},
                                                {"GNU.sparse.map", "1,x"},
                                                {"GNU.sparse.numbytes", "3"},
                                                {"GNU.sparse.name", ""},
                                                {"GNU.sparse.realsize", "-5"}}));
  INFO(key);

  auto const pax = parse_pax(pax_record(key, value));

  REQUIRE_FALSE(pax);
  CHECK(pax.error().code == Errc::corrupt);
}

TEST_CASE("PAX times round down", "[tar][pax]") {
  CHECK(pax_time("5000000000") == Time{5000000000, 0});
  CHECK(pax_time("1700000001.123456789") == Time{1700000001, 123456789});
  CHECK(pax_time("1.5") == Time{1, 500000000});
  CHECK(pax_time("1.0000000019") == Time{1, 1});
  CHECK(pax_time("1.") == Time{1, 0});
  CHECK(pax_time("-1") == Time{-1, 0});
  CHECK(pax_time("-1.25") == Time{-2, 750000000});
  CHECK(pax_time("-0.0000000001") == Time{-1, 999999999});
  CHECK(pax_time("-0.9999999999") == Time{-1, 0});
  CHECK_FALSE(pax_time(""));
  CHECK_FALSE(pax_time("-"));
  CHECK_FALSE(pax_time(".5"));
}

TEST_CASE("LIBARCHIVE attributes are URL names and base64 values", "[tar][pax]") {
  auto const pax = parse_pax(pax_record("LIBARCHIVE.xattr.user.la%3db%25", "AAECAw==") +
                             pax_record("LIBARCHIVE.xattr.user.bare", "AAECAw") +
                             pax_record("LIBARCHIVE.xattr.user.none", ""));

  REQUIRE(pax);
  auto const value = Bytes{std::byte{0}, std::byte{1}, std::byte{2}, std::byte{3}};
  CHECK(pax->xattrs ==
        std::vector<Xattr>{{"user.la=b%", value}, {"user.bare", value}, {"user.none", {}}});
}

TEST_CASE("The raw form of an attribute wins over the encoded one", "[tar][pax]") {
  auto const schily = pax_record("SCHILY.xattr.user.a", "raw");
  auto const libarchive = pax_record("LIBARCHIVE.xattr.user.a", "ZW5j");
  auto const order = GENERATE(0, 1);

  auto const pax = parse_pax(order == 0 ? schily + libarchive : libarchive + schily);

  REQUIRE(pax);
  CHECK(pax->xattrs == std::vector<Xattr>{{"user.a", to_bytes("raw")}});
}

TEST_CASE("PAX local wins over global, global over GNU, GNU over the header", "[tar][pax]") {
  TarMaker maker;
  maker.pax({{"path", "global"}, {"uid", "2"}, {"mtime", "20.5"}}, 'g');
  maker.gnu_long('L', "gnu");
  maker.pax({{"path", "local"}, {"uid", "3"}, {"gid", "70000"}});
  maker.member({.name = "header", .uid = 1, .gid = 1, .mtime = 10});
  maker.gnu_long('L', "gnu").member({.name = "header", .uid = 1, .mtime = 10});
  maker.pax({{"path", ""}, {"uid", ""}, {"mtime", ""}});
  maker.gnu_long('L', "gnu").member({.name = "header", .uid = 1, .mtime = 10});
  maker.pax({{"path", ""}}, 'g').member({.name = "header"}).end();

  auto const entries = decode(maker.bytes()).entries;

  REQUIRE(entries.size() == 4);
  CHECK(entries[0].path == "local");
  CHECK(entries[0].uid == 3);
  CHECK(entries[0].gid == 70000);
  CHECK(entries[0].mtime == Time{20, 500000000});
  CHECK(entries[1].path == "global");
  CHECK(entries[1].uid == 2);
  CHECK(entries[2].path == "gnu");  // the local empty value takes the global one back
  CHECK(entries[2].uid == 1);
  CHECK(entries[2].mtime == Time{10, 0});
  CHECK(entries[3].path == "header");
}

TEST_CASE("Attributes of a global header are ignored and reported", "[tar][pax]") {
  auto const decoded =
      decode(TarMaker().pax({{"SCHILY.xattr.user.a", "1"}}, 'g').file("f").end().bytes());

  REQUIRE(decoded.entries.size() == 1);
  CHECK(decoded.entries[0].xattrs.empty());
  CHECK(decoded.reports.size() == 1);
}

TEST_CASE("A local header concerns one member", "[tar][pax]") {
  auto const entries = decode(TarMaker()
                                  .pax({{"uid", "9"}, {"SCHILY.xattr.user.a", "1"}})
                                  .file("a")
                                  .file("b")
                                  .end()
                                  .bytes())
                           .entries;

  REQUIRE(entries.size() == 2);
  CHECK(entries[0].uid == 9);
  CHECK(entries[1].uid == 0);
  CHECK(entries[1].xattrs.empty());
}

TEST_CASE("PAX size says how much data follow", "[tar][pax]") {
  auto const entries = decode(TarMaker()
                                  .pax({{"size", "1025"}})
                                  .member({.name = "a", .size = 0}, std::string(1025, 'x'))
                                  .file("b")
                                  .end()
                                  .bytes())
                           .entries;

  REQUIRE(entries.size() == 2);
  CHECK(entries[0].size == 1025);
  CHECK(entries[0].extents == std::vector<Extent>{{0, 1536, 1025}});
}

TEST_CASE("parse_pax takes any bytes", "[tar][pax][property]") {
  rc::prop("for all texts made of what records are made of, it returns", [] {
    auto const parts = *rc::gen::container<std::vector<std::string>>(rc::gen::element<std::string>(
        "1", "9", "12", " ", "=", "\n", "path", "GNU.sparse.map", ",", "mtime", "-", ".",
        "SCHILY.xattr.", "LIBARCHIVE.xattr.", "%", "x"));
    std::string text;
    for (auto const& part : parts) text += part;
    auto const pax = parse_pax(text);
    if (!pax) RC_ASSERT(pax.error().code == Errc::corrupt);
  });
}

}  // namespace pax_test
}  // namespace erofs_oci::tar
