// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/mount/image_mount.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <catch.hpp>

#include <erofs_oci/nbd/wakeup.hpp>
#include <erofs_oci/source/memory.hpp>

namespace erofs_oci {
namespace image_mount_test {

using Words = std::vector<std::string>;

/// What the doubles do and have done.
struct World {
  Words done{};                     ///< in order
  std::vector<MountedAt> mounts{};  ///< attached
  int servers = 0;                  ///< that serve
  std::string fails{};              ///< the step that fails
  std::string used{};               ///< the directory that is in use
  MountWay way = MountWay::fuse_file;
  nbd::Wakeup const* end = nullptr;  ///< of the newest server

  Result<void> step(std::string const& what) {
    done.push_back(what);
    return what == fails ? Result<void>(fail(Errc::unavailable, what)) : Result<void>();
  }
  Result<MountedAt> attach(std::string const& target) {
    mounts.push_back({target, 100 + mounts.size()});
    return mounts.back();
  }
};

World* world = nullptr;

/// A kernel that has only a mount table.
struct FakeKernel {
  Result<MountWay> choose(ImageMountOptions const&) const {
    return world->step("choose").map([] { return world->way; });
  }
  Result<std::string> locate(std::string const& path) const {
    return world->step("locate").map([&] { return path; });
  }
  Result<UniqueFd> open_device(std::string const& device, ImageMountOptions const&) const {
    return world->step("open " + device).map(&nothing);
  }
  Result<UniqueFd> open_root(MountedAt const& place) const {
    return world->step("root of " + place.target).map(&nothing);
  }
  Result<UniqueFd> clone(MountedAt const& place, unsigned long) const {
    return world->step("clone " + place.target).map(&nothing);
  }
  Result<void> check(int, std::string const& name) const { return world->step("check " + name); }
  Result<MountedAt> attach(int, std::string const& path) const {
    EROFS_OCI_TRY(world->step("attach " + path));
    return world->attach(path);
  }
  Result<void> unmount(MountedAt const& place, UnmountBusy busy) const {
    auto const is_busy = place.target == world->used && busy == UnmountBusy::refuse;
    EROFS_OCI_TRY(
        world->step((busy == UnmountBusy::refuse ? "unmount " : "detach ") + place.target));
    if (is_busy) return fail_errno(EBUSY, place.target);
    std::erase(world->mounts, place);
    return {};
  }

 private:
  static UniqueFd nothing() { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }
};

/// A server that opens its image, and mounts as FUSE does, or has a device mounted.
class FakeServer {
 public:
  static Result<std::unique_ptr<FakeServer>> start(OpenImage const& open, MountWay way,
                                                   std::string const& target,
                                                   ImageMountOptions const&,
                                                   MountDevice const& mount) {
    EROFS_OCI_TRY(open());
    EROFS_OCI_TRY_ASSIGN(auto end, nbd::Wakeup::open());
    std::unique_ptr<FakeServer> server(new FakeServer(std::move(end)));
    EROFS_OCI_TRY(world->step("serve"));
    EROFS_OCI_TRY_ASSIGN(server->place_, is_nbd(way) ? mount("/dev/nbd7") : world->attach(target));
    return server;
  }
  ~FakeServer() {
    world->done.emplace_back("stop");
    --world->servers;
    world->end = nullptr;
  }
  MountedAt place() const { return place_; }
  int end_fd() const { return end_.fd(); }
  std::optional<Error> failure() const { return std::nullopt; }

 private:
  explicit FakeServer(nbd::Wakeup end) : end_(std::move(end)) {
    ++world->servers;
    world->end = &end_;
  }

  MountedAt place_;
  nbd::Wakeup end_;
};

using Mount = BasicImageMount<FakeServer, FakeKernel>;

Result<MountableImage> image() {
  EROFS_OCI_TRY(world->step("open"));
  return AnySource(Memory(Bytes(4096)));
}

/// A world for one test.
struct ThisWorld : World {
  ThisWorld() { world = this; }
  ~ThisWorld() { world = nullptr; }
  ThisWorld(ThisWorld const&) = delete;
  ThisWorld& operator=(ThisWorld const&) = delete;

  [[nodiscard]] bool is_empty() const { return mounts.empty() && servers == 0; }
  Words take() { return std::exchange(done, {}); }
};

TEST_CASE("A mount is opened, served, checked, cloned and released in this order",
          "[mount][image_mount]") {
  ThisWorld here;
  auto first = Mount::open(image, "/a").value();
  CHECK(here.take() == Words{"choose", "locate", "open", "serve", "root of /a", "check /a"});
  CHECK(first.directory() == "/a");
  CHECK(first.way() == MountWay::fuse_file);
  auto second = first.share("/b").value();
  CHECK(here.take() == Words{"clone /a", "check /a", "attach /b"});
  CHECK(here.servers == 1);

  SECTION("the first one first") {
    REQUIRE(first.release().has_value());
    CHECK(here.take() == Words{"unmount /a"});
    CHECK(second.share("/c").value().directory() == "/c");
    CHECK(here.take() == Words{"clone /b", "check /b", "attach /c", "unmount /c"});
    REQUIRE(second.release().has_value());
    CHECK(here.take() == Words{"unmount /b", "stop"});
  }
  SECTION("the last one first") {
    REQUIRE(second.release().has_value());
    CHECK(here.take() == Words{"unmount /b"});
    REQUIRE(first.release().has_value());
    CHECK(here.take() == Words{"unmount /a", "stop"});
  }
  CHECK(here.is_empty());
  CHECK(first.release().has_value());
  CHECK(second.release().has_value());
  CHECK(first.share("/d").error().code == std::errc::invalid_argument);
}

TEST_CASE("A device is mounted once it is served", "[mount][image_mount]") {
  ThisWorld here;
  here.way = MountWay::netlink;
  {
    auto const mount = Mount::open(image, "/a").value();
    CHECK(here.take() == Words{"choose", "locate", "open", "serve", "open /dev/nbd7", "attach /a",
                               "root of /a", "check /a"});
  }
  CHECK(here.take() == Words{"unmount /a", "stop"});
  CHECK(here.is_empty());
}

TEST_CASE("Whatever fails of an opening, nothing is mounted and nothing served",
          "[mount][image_mount][error]") {
  for (auto const way : {MountWay::fuse_tree, MountWay::netlink}) {
    for (auto const* const step : {"choose", "locate", "open", "serve", "open /dev/nbd7",
                                   "attach /a", "root of /a", "check /a"}) {
      ThisWorld here;
      here.way = way;
      here.fails = step;
      auto const mount = Mount::open(image, "/a");
      auto const is_taken = std::ranges::find(here.done, step) != here.done.end();
      CHECK(is_taken == !mount.has_value());
      CHECK(is_taken == here.is_empty());
      if (!mount) CHECK_THAT(mount.error().message(), Catch::Contains(step));
    }
  }
}

TEST_CASE("Whatever fails of a clone, what was there stays", "[mount][image_mount][error]") {
  for (auto const* const step : {"clone /a", "check /a", "attach /b"}) {
    ThisWorld here;
    auto first = Mount::open(image, "/a").value();
    here.fails = step;
    auto const second = first.share("/b");
    REQUIRE_FALSE(second.has_value());
    CHECK_THAT(second.error().message(), Catch::Contains(step));
    CHECK(here.mounts.size() == 1);
    here.fails.clear();
    CHECK(first.share("/c").has_value());
  }
}

TEST_CASE("Nothing is cloned of a server that has ended", "[mount][image_mount][error]") {
  ThisWorld here;
  auto const first = Mount::open(image, "/a").value();
  auto const other = nbd::Wakeup::open().value();
  other.notify();
  CHECK_FALSE(first.wait(other.fd()));
  here.end->notify();
  CHECK(first.wait());
  CHECK(first.share("/b").error().code == Errc::unavailable);
  CHECK(here.mounts.size() == 1);
}

TEST_CASE("A mount in use is not released, but detached and ended", "[mount][image_mount]") {
  ThisWorld here;
  here.used = "/a";
  {
    auto mount = Mount::open(image, "/a").value();
    CHECK(mount.release().error().code == std::errc::device_or_resource_busy);
    CHECK(here.mounts.size() == 1);
    CHECK(here.servers == 1);
    here.take();

    SECTION("by a user, who waits") {
      REQUIRE(mount.detach().has_value());
      CHECK(here.mounts.empty());
      CHECK(here.servers == 1);
      CHECK(here.take() == Words{"detach /a"});
      here.used.clear();
    }
    SECTION("by the destructor") {
      here.used = "/a";
    }
  }
  CHECK(here.done.back() == "stop");
  CHECK(here.is_empty());
}

TEST_CASE("A mount that is moved is ended once", "[mount][image_mount]") {
  ThisWorld here;
  {
    auto first = Mount::open(image, "/a").value();
    auto second = std::move(first);
    CHECK(second.directory() == "/a");
    auto other = Mount::open(image, "/b").value();
    here.take();
    second = std::move(other);
    CHECK(here.take() == Words{"unmount /a", "stop"});
    CHECK(second.directory() == "/b");
  }
  CHECK(here.take() == Words{"unmount /b", "stop"});
  CHECK(here.is_empty());
}

}  // namespace image_mount_test
}  // namespace erofs_oci
