// SPDX-License-Identifier: Apache-2.0
#include "upstream_mount.hpp"  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include <sys/stat.h>
#include <unistd.h>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/memory.hpp>

namespace mount_oci {
namespace upstream_mount_test {

namespace fs = std::filesystem;

std::string const digest = "sha256:" + std::string(64, 'a');
constexpr auto credentials = "dXNlcjpwYXNzd29yZA==";  // user:password

/// A directory of records and a sysfs with nbd3, both false.
struct World {
  erofs_oci::test::Scratch root;
  UpstreamPlaces places;

  World() {
    fs::create_directories(root / "run/erofsmount/nbd");
    fs::create_directories(root / "sys/nbd3");
    for (auto const* directory : {"run/erofsmount/nbd", "run/erofsmount"}) {
      REQUIRE(::chmod((root / directory).c_str(), 0700) == 0);
    }
    places.records = {records()};
    places.sysfs = root / "sys";
  }

  [[nodiscard]] std::string records() const { return root / "run/erofsmount/nbd"; }

  /// What the kernel keeps for nbd3.
  void keep(std::string const& backend) const {
    std::ofstream(root / "sys/nbd3/backend") << backend << "\n";
  }

  void write(std::string const& name, std::string const& text = "LOCAL /srv/my image\n",
             mode_t mode = 0600) const {
    auto const path = records() + "/" + name;
    std::ofstream(path) << text;
    REQUIRE(::chmod(path.c_str(), mode) == 0);
  }

  [[nodiscard]] Result<std::optional<UpstreamMount>> find() const {
    return find_upstream_mount(3, places);
  }

  [[nodiscard]] std::error_code refusal() const {
    auto const found = find();
    REQUIRE_FALSE(found.has_value());
    INFO(found.error().message());
    return found.error().code;
  }
};

TEST_CASE("A record is found by the identifier that the kernel keeps", "[tool][upstream_mount]") {
  World const world;
  auto const backend = world.records() + "/mountnbd_aB3xY9";
  world.keep(backend);
  world.write("mountnbd_aB3xY9");

  auto const found = world.find();

  REQUIRE(found.has_value());
  REQUIRE(found->has_value());
  CHECK((*found)->index == 3);
  CHECK((*found)->backend == backend);
  CHECK((*found)->path == backend);
  CHECK((*found)->record.path == "/srv/my image");
  CHECK(fs::exists(backend));  // it is another tool's: left alone
}

TEST_CASE("A record is found by the device's number where the kernel keeps no identifier",
          "[tool][upstream_mount]") {
  World const world;
  CHECK(world.find().value() == std::nullopt);

  world.write("mountnbd_nbd3");
  if (GENERATE(true, false)) world.keep("");

  auto const found = world.find();
  REQUIRE(found.has_value());
  REQUIRE(found->has_value());
  CHECK((*found)->backend == world.records() + "/mountnbd_nbd3");
}

TEST_CASE("Identifiers of other tools, and paths that lead elsewhere, are not followed",
          "[tool][upstream_mount][error]") {
  World const world;
  world.write("mountnbd_x");
  world.write("other");
  world.write("mountnbd_nbd3");
  std::ofstream(world.root / "run/mountnbd_x") << "LOCAL /etc/shadow\n";
  // The world is another one in each run, so only what stands behind its path is generated.
  auto const* const behind =
      GENERATE("/../mountnbd_x", "/../../mountnbd_x", "/other", "/", "/./mountnbd_x",
               "//mountnbd_x", "x/mountnbd_x", "/mountnbd_a/b", "/mountnbd_x\nLOCAL /etc/shadow");
  auto const* const elsewhere =
      GENERATE("", "m0123456789abcdef", "mountnbd_x", "/etc/passwd", "/mountnbd_x");
  auto const backend = *elsewhere != '\0' ? std::string(elsewhere) : world.records() + behind;
  world.keep(backend);

  INFO(backend);
  CHECK(world.find().value() == std::nullopt);
}

TEST_CASE("A missing record is not looked for elsewhere", "[tool][upstream_mount][error]") {
  World const world;
  world.keep(world.records() + "/mountnbd_gone");
  world.write("mountnbd_nbd3");

  CHECK(world.refusal() == Errc::not_found);
}

TEST_CASE("A record that others could have written is refused", "[tool][upstream_mount][error]") {
  World const world;
  world.keep(world.records() + "/mountnbd_x");
  auto const path = world.records() + "/mountnbd_x";
  SECTION("a symbolic link") {
    world.write("target");
    fs::create_symlink(world.records() + "/target", path);
    CHECK(world.refusal() == std::errc::too_many_symbolic_link_levels);
  }
  SECTION("a file with another name") {
    world.write("target");
    fs::create_hard_link(world.records() + "/target", path);
    CHECK(world.refusal() == std::errc::permission_denied);
  }
  SECTION("a file for others to read or write") {
    auto const mode = GENERATE(0644, 0660, 0606, 0620, 04600);
    world.write("mountnbd_x", "LOCAL /srv/image\n", static_cast<mode_t>(mode));
    CHECK(world.refusal() == std::errc::permission_denied);
  }
  SECTION("no file") {
    fs::create_directory(path);
    CHECK(world.refusal() == std::errc::permission_denied);
  }
  SECTION("a directory for others") {
    world.write("mountnbd_x");
    auto const* const directory = GENERATE("run/erofsmount/nbd", "run/erofsmount");
    REQUIRE(::chmod((world.root / directory).c_str(), 0755) == 0);
    CHECK(world.refusal() == std::errc::permission_denied);
  }
  SECTION("a directory that is a link") {
    world.write("mountnbd_x");
    fs::rename(world.records(), world.root / "moved");
    fs::create_directory_symlink(world.root / "moved", world.records());
    CHECK(world.refusal() == std::errc::not_a_directory);
  }
  SECTION("another user's") {
    if (::geteuid() != 0) return;
    world.write("mountnbd_x");
    auto const* const owned =
        GENERATE("run/erofsmount/nbd/mountnbd_x", "run/erofsmount/nbd", "run/erofsmount");
    REQUIRE(::chown((world.root / owned).c_str(), 1, 0) == 0);
    CHECK(world.refusal() == std::errc::permission_denied);
  }
  SECTION("none of its forms") {
    auto const* const text = GENERATE("", "LOCAL /srv/image", "LOCAL image\n", "\n");
    world.write("mountnbd_x", text);
    CHECK_FALSE(world.find().has_value());
  }
}

UpstreamRecord parse(std::string const& text) {
  auto record = parse_upstream_record(text);
  if (!record) FAIL(record.error().message());
  return *std::move(record);
}

ImageOptions options(std::string const& text, ImageOptions given = {}) {
  auto made = upstream_options(parse(text), std::move(given));
  if (!made) FAIL(made.error().message());
  return *std::move(made);
}

TEST_CASE("Each record becomes what a user would have said", "[tool][upstream_mount]") {
  auto const local = options("LOCAL /srv/my image \n");
  CHECK(local.image == "file:/srv/my image ");
  CHECK(local.blob.empty());
  CHECK_FALSE(local.layer.has_value());

  auto const layer = options("OCI_LAYER alpine:3 linux/arm/v7 2 \n");
  CHECK(layer.image == "docker.io/library/alpine:3");
  CHECK(layer.platform == "linux/arm/v7");
  CHECK(layer.layer == 2U);
  CHECK(layer.index == IndexUse::none);

  auto const native = options("OCI_NATIVE_BLOB h:5000/a:b  " + digest + "\n");
  CHECK(native.image == "h:5000/a:b");
  CHECK(native.platform.empty());
  CHECK(native.blob == digest);
  CHECK(native.tarindex.empty());

  auto const indexed = options("TARINDEX_OCI_BLOB h/a  " + digest + "  /i/l.erofs /i/l.zinfo\n");
  CHECK(indexed.blob == digest);
  CHECK_FALSE(indexed.layer.has_value());
  CHECK(indexed.tarindex == "/i/l.erofs");
  CHECK(indexed.zinfo == "/i/l.zinfo");

  auto const plain = options("TARINDEX_OCI_BLOB h/a  " + digest + "  /i/l.erofs \n");
  CHECK(plain.zinfo.empty());
}

TEST_CASE("A name is a reference, whatever else it could mean here", "[tool][upstream_mount]") {
  CHECK(options("OCI_LAYER oci:v1  0 \n").image == "docker.io/library/oci:v1");
  CHECK(options("OCI_LAYER file:v1  0 \n").image == "docker.io/library/file:v1");
  for (auto const* name : {"/etc/shadow", "./a", "../a", "oci:/srv/layout", "file:/etc/shadow"}) {
    auto const made = upstream_options(parse("OCI_LAYER " + std::string(name) + "  0 \n"), {});
    INFO(name);
    CHECK_FALSE(made.has_value());
  }
}

TEST_CASE("What a record does not say is as it is given", "[tool][upstream_mount]") {
  ImageOptions given;
  given.insecure = true;
  given.username = "me";
  given.password_file = "/etc/password";
  given.ca = "/etc/ca.pem";
  given.mirrors = {"m"};
  given.tarindex = "/i/given.erofs";
  given.zinfo = "/i/given.zinfo";
  given.layer = 7;
  given.blob = digest;
  given.platform = "linux/s390x";

  auto const layer = options("OCI_LAYER h/a linux/amd64 2 \n", given);
  CHECK(layer.insecure);
  CHECK(layer.username == "me");
  CHECK(layer.password_file == "/etc/password");
  CHECK(layer.ca == "/etc/ca.pem");
  CHECK(layer.mirrors == given.mirrors);
  CHECK(layer.tarindex == "/i/given.erofs");  // such a record never names one
  CHECK(layer.zinfo == "/i/given.zinfo");
  CHECK(layer.layer == 2U);
  CHECK(layer.blob.empty());
  CHECK(layer.platform == "linux/amd64");

  auto const indexed = options("TARINDEX_OCI_BLOB h/a  " + digest + "  /i/l.erofs \n", given);
  CHECK(indexed.tarindex == "/i/l.erofs");
  CHECK(indexed.zinfo.empty());
}

TEST_CASE("Credentials of a record are in no option and no message", "[tool][upstream_mount]") {
  World const world;
  world.keep(world.records() + "/mountnbd_x");
  world.write("mountnbd_x", "OCI_LAYER h/a linux/amd64 2 " + std::string(credentials) + "\n");
  auto const found = world.find();
  REQUIRE(found.has_value());
  REQUIRE(found->has_value());
  CHECK((*found)->record.had_credentials);
  auto const made = upstream_options((*found)->record, {});
  REQUIRE(made.has_value());
  CHECK(made->username.empty());
  CHECK(made->password.empty());
  for (auto const* text : {&made->image, &made->platform, &made->blob, &made->password_file}) {
    CHECK(text->find("dXNl") == std::string::npos);
  }

  world.write("mountnbd_x", "OCI_LAYER h/a x " + std::string(credentials) + " 2\n");
  auto const refused = world.find();
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().message().find("dXNl") == std::string::npos);
  CHECK(refused.error().message().find("mountnbd_x") != std::string::npos);
}

TEST_CASE("An object of S3 is named and refused", "[tool][upstream_mount][error]") {
  auto const made = upstream_options(parse("S3_OBJECT bucket/key s3.example.com 0 1 eu-1\n"), {});
  REQUIRE_FALSE(made.has_value());
  CHECK(made.error().code == Errc::unsupported);
  CHECK(made.error().message().find("bucket/key at s3.example.com") != std::string::npos);
}

TEST_CASE("Behind an image there are zeros to the end of any device of mount.erofs",
          "[tool][upstream_mount]") {
  auto const padded = pad_for_upstream(
      erofs_oci::AnySource(erofs_oci::Memory(erofs_oci::Bytes(1000, std::byte{7}))));
  REQUIRE(padded.has_value());
  CHECK(padded->size() == upstream_device_size);
  erofs_oci::Bytes page(4096, std::byte{1});
  for (auto const offset : {std::uint64_t{0}, std::uint64_t{4096}, upstream_device_size - 4096}) {
    REQUIRE(read_exact(*padded, offset, page).has_value());
    CHECK(page[999] == std::byte{offset == 0 ? std::uint8_t{7} : std::uint8_t{0}});
    CHECK(page[1000] == std::byte{0});
  }
}

}  // namespace upstream_mount_test
}  // namespace mount_oci
