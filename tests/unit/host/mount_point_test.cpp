// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/host/mount_point.hpp>  // first: proves that the header stands alone

#include <cstdlib>
#include <filesystem>
#include <string>

#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <catch.hpp>
#include <child.hpp>
#include <scratch.hpp>

#include <erofs_oci/host/unmount.hpp>

namespace erofs_oci {
namespace mount_point_test {

namespace fs = std::filesystem;

constexpr uid_t somebody = 1000;

bool is_root() {
  if (::geteuid() == 0 && in_first_user_namespace()) return true;
  WARN("skipped: not root");
  return false;
}

/// A directory of another user, as root meets it: with `mnt` and `link`, which leads to `mnt`.
struct Home {
  test::Scratch directory;
  std::string path = fs::canonical(directory.path()).string();

  Home() {
    fs::create_directory(path + "/mnt");
    fs::create_symlink("mnt", path + "/link");
  }
};

TEST_CASE("A mount point is where its path led when it was opened", "[host][mount_point]") {
  Home const home;
  auto const place = MountPoint::open(home.path + "/./link//").value();
  CHECK(place.path() == home.path + "/mnt");
  fs::rename(home.path + "/mnt", home.path + "/moved");
  CHECK(fs::equivalent(place.place(), home.path + "/moved"));
}

TEST_CASE("Only an existing directory is a mount point", "[host][mount_point][error]") {
  CHECK(MountPoint::open("/dev/null").error().code == std::errc::not_a_directory);
  CHECK(MountPoint::open("/no/such/directory").error().code ==
        std::errc::no_such_file_or_directory);
  CHECK(MountPoint::open("").error().code == std::errc::no_such_file_or_directory);
  Home const home;
  fs::create_symlink("loop", home.path + "/loop");
  CHECK(MountPoint::open(home.path + "/loop").error().code ==
        std::errc::too_many_symbolic_link_levels);
}

TEST_CASE("Root follows no symbolic link of another user", "[host][mount_point][error]") {
  if (!is_root()) return;
  Home const home;
  REQUIRE(::lchown((home.path + "/link").c_str(), somebody, somebody) == 0);
  auto const refused = MountPoint::open(home.path + "/link");
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == std::errc::too_many_symbolic_link_levels);
  CHECK_THAT(refused.error().message(), Catch::Contains("symbolic link of user 1000"));
  CHECK_FALSE(MountPoint::open(home.path + "/link/../mnt").has_value());
  CHECK(MountPoint::open(home.path + "/mnt").has_value());
  // Nor does umount(2) go through one.
  CHECK(unmount(home.path + "/link/x", UnmountBusy::refuse).error().code ==
        std::errc::too_many_symbolic_link_levels);
}

TEST_CASE("Other users follow all links", "[host][mount_point]") {
  if (!is_root()) return;
  Home const home;
  ::lchown((home.path + "/link").c_str(), 1, 1);
  fs::permissions(home.path, fs::perms(0755));
  auto const status = test::in_a_child([&] {
    if (::setuid(somebody) != 0) return 1;
    return MountPoint::open(home.path + "/link").has_value() ? 0 : 2;
  });
  CHECK(status == 0);
}

TEST_CASE("Of two mounts at one path only the one that is meant is unmounted",
          "[host][mount_point]") {
  if (!is_root()) return;
  Home const home;
  auto const mnt = home.path + "/mnt";
  auto const status = test::in_a_child([&] {
    auto const mount = [&] { return ::mount("t", mnt.c_str(), "tmpfs", 0, nullptr) == 0; };
    if (::unshare(CLONE_NEWNS) != 0) return 77;
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 77;
    auto const top = [&] { return mount_id_at(mnt).value_or(0); };
    auto const before = top();
    if (!mount()) return 77;
    auto const lower = top();
    if (!mount()) return 77;
    auto const upper = top();
    if (before == 0 || before == lower || lower == upper) return 1;
    auto const end = [&](auto which) { return unmount(mnt + '/', UnmountBusy::detach, "", which); };
    auto const refused = end(lower);
    if (refused || refused.error().code != std::errc::invalid_argument) return 2;
    if (top() != upper) return 3;
    if (!is_mounted(lower) || !is_mounted(upper)) return 6;
    if (!end(upper) || top() != lower) return 4;
    if (!is_mounted(lower) || is_mounted(upper)) return 7;
    if (!end(lower) || top() != before) return 5;
    return 0;
  });
  if (status == 77) {
    WARN("skipped: no mounts");
  } else {
    CHECK(status == 0);
  }
}

}  // namespace mount_point_test
}  // namespace erofs_oci
