// SPDX-License-Identifier: Apache-2.0
#include "mount_table.hpp"  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>

#include <sys/sysmacros.h>

#include <catch.hpp>
#include <rapidcheck/catch.h>
#include <scratch.hpp>

namespace mount_oci {
namespace mount_table_test {

constexpr auto table_text =
    "22 1 254:0 / / rw,relatime - ext4 /dev/root rw\n"
    "40 22 43:0 / /mnt/a\\040b ro,relatime shared:1 master:2 - erofs /dev/nbd0 ro\n"
    "41 22 0:5 / /mnt/a\\040b rw - tmpfs tmpfs rw\n"
    "nonsense\n"
    "42 22 43:32 /sub /mnt/c\\134d rw unbindable - erofs /dev/nbd1 ro\n"
    "43 22 x:y / /mnt/e rw - erofs /dev/nbd2 ro\n"
    "44 22 43:64 / /mnt/no-type rw";

TEST_CASE("A mount table is read, its escapes decoded, and what is no line left out", "[tool]") {
  auto const table = parse_mount_table(table_text);

  REQUIRE(table.size() == 4);
  CHECK(table[1].target == "/mnt/a b");
  CHECK(table[1].type == "erofs");
  CHECK(table[1].source == "/dev/nbd0");
  CHECK(table[1].device == makedev(43, 0));
  CHECK(table[3].target == "/mnt/c\\d");
  CHECK(table[3].device == makedev(43, 32));
}

TEST_CASE("A device is looked for among what is mounted", "[tool]") {
  auto const table = parse_mount_table(table_text);
  CHECK(is_source(table, "/dev/nbd0"));
  CHECK(is_source(table, "/dev/nbd1"));
  CHECK_FALSE(is_source(table, "/dev/nbd"));
  CHECK_FALSE(is_source(table, "/dev/nbd7"));
}

TEST_CASE("The mounts of a file system are those of all of it", "[tool]") {
  auto const table = parse_mount_table(table_text + std::string("\n") +
                                       "50 22 43:32 / /mnt/z ro - erofs /dev/nbd1 ro\n"
                                       "51 22 43:32 / /mnt/y ro - erofs /dev/nbd1 ro\n");

  auto const mounts = mounts_of(table, makedev(43, 32));

  CHECK(table[3].root == "/sub");
  REQUIRE(mounts.size() == 2);
  CHECK(mounts[0].target == "/mnt/z");
  CHECK(mounts[1].target == "/mnt/y");
  CHECK(mounts_of(table, makedev(43, 33)).empty());
}

TEST_CASE("The last mount at a path is the one that is seen", "[tool]") {
  auto const table = parse_mount_table(table_text);

  REQUIRE(find_target(table, "/mnt/a b").has_value());
  CHECK(find_target(table, "/mnt/a b")->type == "tmpfs");
  CHECK_FALSE(find_target(table, "/mnt/a").has_value());
  CHECK_FALSE(find_target(table, "/mnt/a\\040b").has_value());
}

TEST_CASE("Only whole octal escapes are decoded", "[tool]") {
  CHECK(decode_octal("\\040\\011\\012\\134") == " \t\n\\");
  CHECK(decode_octal("a\\04") == "a\\04");
  CHECK(decode_octal("\\089\\") == "\\089\\");
  CHECK(decode_octal("") == "");
}

TEST_CASE("A path that the kernel escapes reads back as it was", "[tool][property]") {
  rc::prop("for all paths with characters that are escaped", [] {
    auto const path =
        *rc::gen::container<std::string>(rc::gen::element('a', ' ', '\t', '\n', '\\', '0', '4'));
    std::string escaped;
    for (auto const c : path) {
      auto const octal = std::string("01234567");
      auto const byte = static_cast<unsigned char>(c);
      if (c == ' ' || c == '\t' || c == '\n' || c == '\\') {
        escaped += {'\\', octal[byte >> 6u], octal[(byte >> 3u) & 7u], octal[byte & 7u]};
      } else {
        escaped += c;
      }
    }

    RC_ASSERT(decode_octal(escaped) == path);
  });
}

TEST_CASE("The NBD device behind a device number is found by its name", "[tool]") {
  erofs_oci::test::Scratch const root;
  auto const add = [&](char const* number, char const* text) {
    std::filesystem::create_directories(root / number);
    std::ofstream(root / number + "/uevent") << text;
  };
  add("43:0", "MAJOR=43\nMINOR=0\nDEVNAME=nbd0\nDEVTYPE=disk\n");
  add("43:99", "MAJOR=43\nMINOR=99\nDEVNAME=nbd12p3\nDEVTYPE=partition\n");
  add("8:0", "MAJOR=8\nMINOR=0\nDEVNAME=sda\n");

  CHECK(nbd_index_of(makedev(43, 0), root.path()) == 0u);
  CHECK(nbd_index_of(makedev(43, 99), root.path()) == 12u);
  CHECK_FALSE(nbd_index_of(makedev(8, 0), root.path()).has_value());
  CHECK_FALSE(nbd_index_of(makedev(9, 9), root.path()).has_value());

  auto const map = [&](std::string const& number, std::string const& name) {
    add(number.c_str(), "DEVNAME=dm-0\nDEVTYPE=disk\n");
    std::filesystem::create_directories(root / number + "/dm");
    std::ofstream(root / number + "/dm/name") << name << "\n";
  };
  map("254:0", "erofs_oci-nbd3");
  map("254:1", "erofs_oci-loop3");
  map("254:2", "vg-nbd3");
  CHECK(nbd_index_of(makedev(254, 0), root.path()) == 3u);
  CHECK_FALSE(nbd_index_of(makedev(254, 1), root.path()).has_value());
  CHECK_FALSE(nbd_index_of(makedev(254, 2), root.path()).has_value());
  CHECK(is_verity_device(makedev(254, 0), root.path()));
  CHECK(is_verity_device(makedev(254, 1), root.path()));
  CHECK_FALSE(is_verity_device(makedev(254, 2), root.path()));
  CHECK_FALSE(is_verity_device(makedev(43, 0), root.path()));
  CHECK(is_verity_source("/dev/mapper/erofs_oci-nbd3"));
  CHECK_FALSE(is_verity_source("/dev/nbd3"));
  CHECK_FALSE(is_verity_source("/run/erofs_oci-Ab12/image"));
}

}  // namespace mount_table_test
}  // namespace mount_oci
