// SPDX-License-Identifier: Apache-2.0
#include "same_image.hpp"  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>
#include <string>

#include <sys/stat.h>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/source/local.hpp>
#include <erofs_oci/source/memory.hpp>

#include "data_path.hpp"
#include "served_image.hpp"
#include "upstream_mount.hpp"

namespace mount_oci {
namespace same_image_test {

namespace fs = std::filesystem;
using erofs_oci::AnySource;

fs::path data() {
  return fs::path(erofs_oci::test_data("/oci"));
}

ImageTraits traits_of(std::string const& name) {
  auto file = erofs_oci::Local::open(data() / name);
  REQUIRE(file.has_value());
  auto const traits = image_traits(AnySource(*std::move(file)));
  if (!traits) FAIL(traits.error().message());
  return *traits;
}

TEST_CASE("An image's traits are those that the kernel would tell", "[tool][same_image]") {
  erofs_oci::Bytes bytes(8192);
  erofs_oci::erofs::Superblock superblock;
  superblock.block_bits = 9;
  superblock.inodes = 17;
  superblock.blocks_low = 10;
  superblock.uuid[0] = std::byte{0x0f};
  superblock.uuid[8] = std::byte{0xf1};
  superblock.uuid[15] = std::byte{0x80};
  superblock.feature_incompat = erofs_oci::erofs::incompat::device_table;
  superblock.extra_devices = 2;
  superblock.device_table_slot = 16;
  superblock.encode(std::span(bytes).subspan<1024, 128>());
  erofs_oci::store_le(std::uint32_t{100}, std::span(bytes).subspan<2048 + 64, 4>());
  erofs_oci::store_le(std::uint32_t{1000}, std::span(bytes).subspan<2048 + 128 + 64, 4>());

  auto const traits = image_traits(AnySource(erofs_oci::Memory(bytes)));

  REQUIRE(traits.has_value());
  CHECK(traits->block_size == 512);
  CHECK(traits->inodes == 17);
  CHECK(traits->blocks == 1110U);
  CHECK(traits->uuid == 0x8000'0000'0000'00feU);

  SECTION("blocks are not compared where kernels count them otherwise") {
    superblock.feature_incompat |= erofs_oci::erofs::incompat::wide_addresses;
    superblock.encode(std::span(bytes).subspan<1024, 128>());
    CHECK(image_traits(AnySource(erofs_oci::Memory(bytes)))->blocks == std::nullopt);
  }
  SECTION("what is no image has none") {
    bytes[1024] = std::byte{0};
    CHECK(image_traits(AnySource(erofs_oci::Memory(bytes))).error().code == Errc::mismatch);
  }
  SECTION("nor has one whose devices are beyond its end") {
    superblock.device_table_slot = 63;
    superblock.encode(std::span(bytes).subspan<1024, 128>());
    CHECK_FALSE(image_traits(AnySource(erofs_oci::Memory(bytes))).has_value());
  }
}

TEST_CASE("Images differ if one of their traits does", "[tool][same_image]") {
  auto const traits = traits_of("gz-ckpt.erofs");
  CHECK(compare_traits(traits, traits).has_value());
  CHECK_FALSE(compare_traits(traits_of("gz-basic.erofs"), traits).has_value());

  auto other = traits;
  SECTION("block size") {
    other.block_size *= 2;
  }
  SECTION("inodes") {
    other.inodes += 1;
  }
  SECTION("blocks") {
    *other.blocks -= 1;
  }
  SECTION("UUID") {
    *other.uuid ^= 1;
  }
  auto const compared = compare_traits(traits, other);
  REQUIRE_FALSE(compared.has_value());
  CHECK(compared.error().code == Errc::mismatch);
}

TEST_CASE("What the kernel does not tell is not compared", "[tool][same_image]") {
  auto const traits = traits_of("gz-ckpt.erofs");
  auto known = traits;
  known.uuid.reset();  // before 6.10
  CHECK(compare_traits(traits, known).has_value());
  known.blocks.reset();
  CHECK(compare_traits(traits, known).has_value());
}

TEST_CASE("A device is as large as its image, or as mount.erofs makes all", "[tool][same_image]") {
  CHECK(check_device_size(1 << 20, 1 << 20).has_value());
  CHECK(check_device_size(1 << 20, upstream_device_size).has_value());
  for (auto const size : {std::uint64_t{0}, std::uint64_t{(1 << 20) - 512},
                          std::uint64_t{(1 << 20) + 512}, upstream_device_size - 512}) {
    CHECK(check_device_size(1 << 20, size).error().code == Errc::mismatch);
  }
}

TEST_CASE("The size of a device is sysfs's number of sectors", "[tool][same_image]") {
  erofs_oci::test::Scratch const sysfs;
  fs::create_directory(sysfs / "nbd3");
  auto const say = [&](char const* text) { std::ofstream(sysfs / "nbd3/size") << text << "\n"; };

  CHECK_FALSE(nbd_device_bytes(3, sysfs.path()).has_value());
  say("18014398509481983");
  CHECK(nbd_device_bytes(3, sysfs.path()).value() == upstream_device_size);
  say("8");
  CHECK(nbd_device_bytes(3, sysfs.path()).value() == 4096);
  for (auto const* text : {"", "x", "8x", "-8", "18014398509481984"}) {
    say(text);
    CHECK_FALSE(nbd_device_bytes(3, sysfs.path()).has_value());
  }
}

TEST_CASE("A place where something else is mounted is not compared with", "[tool][same_image]") {
  struct stat status{};
  REQUIRE(::stat("/proc", &status) == 0);

  CHECK(mounted_traits("/proc", status.st_dev).error().code == Errc::mismatch);
  CHECK(mounted_traits("/proc", status.st_dev + 1).error().code == Errc::mismatch);
  CHECK_FALSE(mounted_traits("/proc/nothing", status.st_dev).has_value());
}

TEST_CASE("In place of mount.erofs, a layer without its index is not indexed",
          "[tool][same_image][error]") {
  Log const log(0);
  ImageOptions options;
  options.image = "file:" + (data() / "ckpt.tar.gz").string();
  options.store = "none";
  options.in_place_of = {999'999, "/run/erofsmount/nbd/mountnbd_x", "/mnt", {}};

  auto const served = serve_first(options, log, nullptr);

  REQUIRE_FALSE(served.has_value());
  CHECK(served.error().code == Errc::unsupported);
  CHECK(served.error().message().find("oci.tarindex") != std::string::npos);
}

TEST_CASE("In place of mount.erofs, an image is compared before it is served",
          "[tool][same_image][error]") {
  Log const log(0);
  ImageOptions options;
  options.image = "file:" + (data() / "ckpt.tar.gz").string();
  options.tarindex = data() / "gz-ckpt.erofs";
  options.zinfo = data() / "gz-ckpt.zinfo";
  options.store = "none";
  options.in_place_of = {999'999, "/run/erofsmount/nbd/mountnbd_x", "/mnt", {}};

  auto const served = serve_first(options, log, nullptr);

  REQUIRE_FALSE(served.has_value());
  CHECK(served.error().message().find("nbd999999") != std::string::npos);
}

}  // namespace same_image_test
}  // namespace mount_oci
