// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/mount/image_server.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <catch.hpp>
#include <sanitized.hpp>
#include <threads.hpp>

#include <erofs_oci/nbd/wakeup.hpp>
#include <erofs_oci/source/memory.hpp>

namespace erofs_oci {
namespace image_server_test {

/// What becomes of a start that fails, by both kinds of readers; no thread is left of it.
Error failure(OpenImage const& open, MountWay way, ImageMountOptions options = {}) {
  Error error;
  auto const before = testing::threads();
  std::vector<ImageReaders> kinds{ImageReaders::threads};
  // The thread sanitizer allows no thread in a process that one of several threads has forked.
  if (!is_sanitized) kinds.push_back(ImageReaders::processes);
  for (auto const readers : kinds) {
    options.readers = readers;
    auto const never = [](std::string const&) -> Result<MountedAt> {
      FAIL("a device");
      return MountedAt();
    };
    auto const started = ImageServer::start(open, way, "/no/such/directory", options, never);
    REQUIRE_FALSE(started.has_value());
    error = started.error();
    CHECK(testing::are_left(before));
  }
  return error;
}

TEST_CASE("An image that cannot be opened is not served", "[mount][image_server][error]") {
  auto const open = []() -> Result<MountableImage> { return fail(Errc::not_found, "my image"); };
  for (auto const way : all_mount_ways) {
    auto const error = failure(open, way);
    CHECK(error.code == Errc::not_found);
    CHECK_THAT(error.message(), Catch::Contains("my image"));
    CHECK_THAT(error.message(), Catch::Contains("/no/such/directory"));
  }
}

TEST_CASE("An exception of what opens the image is an error", "[mount][image_server][error]") {
  auto const open = []() -> Result<MountableImage> { throw std::bad_alloc(); };
  CHECK(failure(open, MountWay::fuse_tree).code == std::errc::not_enough_memory);
}

TEST_CASE("What is no EROFS image is no tree", "[mount][image_server][error]") {
  auto const open = []() -> Result<MountableImage> { return AnySource(Memory(Bytes(4096))); };
  CHECK(failure(open, MountWay::fuse_tree).code == Errc::corrupt);
}

TEST_CASE("A device that cannot be is not mounted", "[mount][image_server][error]") {
  auto const open = []() -> Result<MountableImage> { return AnySource(Memory(Bytes())); };
  CHECK(failure(open, MountWay::netlink).code == Errc::invalid_argument);
}

TEST_CASE("A descriptor ends a start early", "[mount][image_server][error]") {
  auto const now = nbd::Wakeup::open().value();
  now.notify();
  ImageMountOptions options;
  options.interrupt = now.fd();
  auto const open = []() -> Result<MountableImage> {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return AnySource(Memory(Bytes(4096)));
  };
  CHECK(failure(open, MountWay::fuse_tree, options).code == std::errc::interrupted);
}

}  // namespace image_server_test
}  // namespace erofs_oci
