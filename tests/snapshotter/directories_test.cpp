// SPDX-License-Identifier: Apache-2.0
#include "directories.hpp"  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch.hpp>

#include <erofs_oci/host/privilege.hpp>
#include <erofs_oci/posix/temporary_directory.hpp>

namespace oci_snapshotter {
namespace directories_test {

namespace fs = std::filesystem;

struct Fixture {
  erofs_oci::TemporaryDirectory directory =
      erofs_oci::TemporaryDirectory::make("/tmp/snapshot-files-").value();
  SnapshotDirectories directories = SnapshotDirectories::open(directory.path()).value();

  ~Fixture() {
    for (auto const* name : {"/snapshots", "/trash"}) fs::remove_all(directory.path() + name);
  }
  bool is_empty(char const* name) const { return fs::is_empty(directory.path() + name); }
};

TEST_CASE("A snapshot's root is 0755 whatever the umask", "[snapshotter][directories]") {
  Fixture const fixture;
  auto const old = ::umask(0077);
  auto const made = fixture.directories.make(7, ::getuid(), ::getgid());
  ::umask(old);

  REQUIRE(made.has_value());
  struct stat about{};
  REQUIRE(::stat(fixture.directories.files(7).c_str(), &about) == 0);
  CHECK((about.st_mode & 07777) == 0755);
  CHECK(fs::is_directory(fixture.directories.work(7)));
  CHECK_FALSE(fixture.directories.make(7, ::getuid(), ::getgid()).has_value());
}

TEST_CASE("What is discarded is gone at once, and removed by purge()",
          "[snapshotter][directories]") {
  Fixture const fixture;
  for (auto const id : {1U, 2U, 3U}) {
    REQUIRE(fixture.directories.make(id, ::getuid(), ::getgid()));
  }
  fs::create_directories(fixture.directories.files(1) + "/deep/er");
  std::ofstream(fixture.directories.files(1) + "/deep/file") << "text";
  fs::create_symlink("/etc", fixture.directories.files(1) + "/deep/link");

  REQUIRE(fixture.directories.discard(1));
  REQUIRE(fixture.directories.discard(9));
  REQUIRE(fixture.directories.discard_others({3}));

  CHECK_FALSE(fs::exists(fixture.directories.files(1)));
  CHECK_FALSE(fs::exists(fixture.directories.files(2)));
  CHECK(fs::exists(fixture.directories.files(3)));
  REQUIRE(fixture.directories.purge());
  CHECK(fixture.is_empty("/trash"));
  CHECK(fs::exists("/etc"));
}

TEST_CASE("purge() removes nothing of what is mounted", "[snapshotter][directories]") {
  if (!erofs_oci::may_mount()) {
    WARN("not tried: nothing can be mounted");
    return;
  }
  Fixture const fixture;
  auto const precious = fixture.directory.path() + "/snapshots/precious";
  fs::create_directory(precious);
  std::ofstream(precious + "/file") << "text";
  REQUIRE(fixture.directories.make(1, 0, 0));
  auto const place = fixture.directories.files(1) + "/mounted";
  fs::create_directory(place);
  std::ofstream(fixture.directories.files(1) + "/other") << "text";
  REQUIRE(::mount(precious.c_str(), place.c_str(), nullptr, MS_BIND, nullptr) == 0);
  REQUIRE(fixture.directories.discard(1));

  auto const purged = fixture.directories.purge();

  CHECK(fs::exists(precious + "/file"));
  REQUIRE_FALSE(purged.has_value());
  CHECK(purged.error().code == std::errc::device_or_resource_busy);
  auto const aside = fixture.directory.path() + "/trash/1/fs";
  CHECK_FALSE(fs::exists(aside + "/other"));
  REQUIRE(::umount2((aside + "/mounted").c_str(), 0) == 0);
  CHECK(fixture.directories.purge().has_value());
  CHECK(fixture.is_empty("/trash"));
}

TEST_CASE("Usage counts a file with two names once", "[snapshotter][directories]") {
  Fixture const fixture;
  REQUIRE(fixture.directories.make(1, ::getuid(), ::getgid()));
  auto const empty = fixture.directories.usage(1);
  REQUIRE(empty.has_value());
  CHECK(empty->inodes == 1);
  auto const file = fixture.directories.files(1) + "/a";
  std::ofstream(file) << std::string(100'000, 'x');
  fs::create_hard_link(file, fixture.directories.files(1) + "/b");

  auto const use = fixture.directories.usage(1);

  REQUIRE(use.has_value());
  CHECK(use->inodes == 2);
  CHECK(use->bytes >= empty->bytes + 100'000);
  CHECK(use->bytes < empty->bytes + 200'000);
  CHECK(fixture.directories.usage(2)->inodes == 0);
}

}  // namespace directories_test
}  // namespace oci_snapshotter
