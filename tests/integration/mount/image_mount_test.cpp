// SPDX-License-Identifier: Apache-2.0
// Images that are mounted by the running kernel and served by this process, by each way that the
// machine has. Needs root, and says "skipped" otherwise. All mounts are in a mount namespace of the
// test's own, and vanish with it.
#include <erofs_oci/mount/image_mount.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <catch.hpp>
#include <scratch.hpp>
#include <threads.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/http/transport.hpp>
#include <erofs_oci/image/open_named.hpp>
#include <erofs_oci/oci/layout_writer.hpp>
#include <erofs_oci/source/memory.hpp>

#include "../mounting.hpp"

namespace erofs_oci {
namespace image_mount_test {

namespace fs = std::filesystem;

bool skip() {
  static auto const why = [] {
    if (::geteuid() == 0 && ::access("/dev/fuse", R_OK | W_OK) != 0) {
      return std::string("skipped: no /dev/fuse");
    }
    return mounting::why_no_mounts();
  }();
  if (!why.empty()) WARN(why);
  return !why.empty();
}

std::string text_of(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A layer of one directory's files, as tar and gzip make it.
Descriptor add_layer(LayoutWriter const& layout, std::string const& folder) {
  auto const tar = folder + ".tar.gz";
  REQUIRE(std::system(("tar -C " + folder + " -czf " + tar + " .").c_str()) == 0);
  auto const bytes = text_of(tar);
  auto made = descriptor_of("application/vnd.oci.image.layer.v1.tar+gzip", as_bytes(bytes));
  REQUIRE(layout.put_blob(made.digest, as_bytes(bytes)).has_value());
  return made;
}

/// An image of two layers in a layout, and three directories to mount it at.
class Image {
 public:
  Image() {
    for (auto const* const name : {"1", "2", "a", "b", "c", "layout"}) {
      fs::create_directory(path(name));
    }
    std::ofstream(path("1/low")) << std::string(300'000, 'l');
    std::ofstream(path("1/both")) << "low";
    std::ofstream(path("2/high")) << "high";
    std::ofstream(path("2/both")) << "both";
    auto const layout = LayoutWriter::open(path("layout")).value();
    Manifest manifest;
    manifest.media_type = "application/vnd.oci.image.manifest.v1+json";
    manifest.config = descriptor_of("application/vnd.oci.image.config.v1+json", as_bytes("{}"));
    REQUIRE(layout.put_blob(manifest.config.digest, as_bytes("{}")).has_value());
    manifest.layers = {add_layer(layout, path("1")), add_layer(layout, path("2"))};
    REQUIRE(layout.put_manifest("v1", manifest.media_type, encode(manifest)).has_value());
  }
  Image(Image const&) = delete;
  Image& operator=(Image const&) = delete;
  ~Image() {
    for (auto const* const name : {"a", "b", "c"}) ::umount2(path(name).c_str(), MNT_DETACH);
  }

  [[nodiscard]] std::string path(std::string const& name) const { return scratch_ / name; }

  /// Opens its lowest layers, or all.
  [[nodiscard]] OpenImage open(std::optional<std::uint32_t> layers = {}) const {
    return [name = "oci:" + path("layout") + ":v1", layers]() -> Result<MountableImage> {
      NamedImageOptions options;
      options.layers.first = layers;
      EROFS_OCI_TRY_ASSIGN(auto opened, open_named(name, options, HttplibTransport()));
      return std::move(opened.device);
    };
  }

  /// Whether nothing of it is mounted.
  [[nodiscard]] bool is_unmounted() const {
    return text_of("/proc/self/mountinfo").find(scratch_.path()) == std::string::npos;
  }

 private:
  test::Scratch scratch_{"/var/tmp"};
};

/// The ways that this machine has.
std::vector<MountWay> ways() {
  std::vector<MountWay> found;
  for (auto const way : all_mount_ways) {
    if (choose_here(std::array{way}).way) found.push_back(way);
  }
  REQUIRE(std::ranges::find(found, MountWay::fuse_tree) != found.end());
  return found;
}

ImageMountOptions by(MountWay way) {
  ImageMountOptions options;
  options.ways = {way};
  return options;
}

TEST_CASE("The first layers of an image are mounted, or all", "[mount]") {
  if (skip()) return;
  Image const image;
  auto const low = ImageMount::open(image.open(1), image.path("a")).value();
  CHECK(low.directory() == image.path("a"));
  CHECK(text_of(image.path("a/both")) == "low");
  CHECK_FALSE(fs::exists(image.path("a/high")));
  auto const all = ImageMount::open(image.open(), image.path("b")).value();
  CHECK(text_of(image.path("b/both")) == "both");
  CHECK(text_of(image.path("b/high")) == "high");
  CHECK(text_of(image.path("b/low")) == std::string(300'000, 'l'));
  auto const none = ImageMount::open(image.open(3), image.path("c"));
  REQUIRE_FALSE(none.has_value());
  CHECK_THAT(none.error().message(), Catch::Contains("the first 3 layers of 2"));
}

TEST_CASE("Mounts that share a server are released in any order", "[mount]") {
  if (skip()) return;
  for (auto const way : ways()) {
    INFO(name_of(way));
    std::array order{0, 1, 2};
    do {
      Image const image;
      auto const before = testing::threads();
      std::vector<std::optional<ImageMount>> mounts;
      mounts.emplace_back(ImageMount::open(image.open(), image.path("a"), by(way)).value());
      auto const serving = testing::threads();
      mounts.emplace_back(mounts[0]->share(image.path("b"), MS_NOEXEC).value());
      mounts.emplace_back(mounts[1]->share(image.path("c")).value());
      CHECK(testing::are_left(serving));
      struct statvfs status{};
      REQUIRE(::statvfs(image.path("b").c_str(), &status) == 0);
      CHECK((status.f_flag & (ST_NOEXEC | ST_RDONLY)) == (ST_NOEXEC | ST_RDONLY));
      REQUIRE(::statvfs(image.path("c").c_str(), &status) == 0);
      CHECK((status.f_flag & (ST_NOEXEC | ST_NOSUID)) == ST_NOSUID);
      for (auto const next : order) {
        for (auto const& mount : mounts) {
          if (mount) CHECK(text_of(mount->directory() + "/both") == "both");
        }
        auto& one = mounts[static_cast<std::size_t>(next)];
        auto const ok = one->release();
        INFO((ok ? "" : ok.error().message()));
        CHECK(ok.has_value());
        CHECK(fs::is_empty(one->directory()));
        one.reset();
      }
      CHECK(testing::are_left(before));
      CHECK(image.is_unmounted());
    } while (std::ranges::next_permutation(order).found);
  }
}

TEST_CASE("A mount in use is released by no one, but ends with its object", "[mount]") {
  if (skip()) return;
  for (auto const way : ways()) {
    INFO(name_of(way));
    Image const image;
    auto const before = testing::threads();
    UniqueFd file;
    {
      auto mount = ImageMount::open(image.open(), image.path("a"), by(way)).value();
      file = UniqueFd(::open(image.path("a/low").c_str(), O_RDONLY | O_CLOEXEC));
      REQUIRE(file);
      CHECK(mount.release().error().code == std::errc::device_or_resource_busy);
      CHECK(text_of(image.path("a/both")) == "both");
      REQUIRE(mount.detach().has_value());
      CHECK(image.is_unmounted());
      CHECK_FALSE(mount.share(image.path("b")).has_value());
      char byte = 0;
      CHECK(::pread(file.get(), &byte, 1, 200'000) == 1);
      ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    }
    char byte = 0;
    CHECK(::pread(file.get(), &byte, 1, 100'000) == -1);
    CHECK(testing::are_left(before));
  }
}

TEST_CASE("A mount that others unmount has ended", "[mount]") {
  if (skip()) return;
  for (auto const way : ways()) {
    INFO(name_of(way));
    Image const image;
    auto mount = ImageMount::open(image.open(), image.path("a"), by(way)).value();
    auto second = mount.share(image.path("b")).value();
    REQUIRE(::umount2(image.path("a").c_str(), 0) == 0);
    CHECK(mount.release().has_value());
    CHECK(text_of(image.path("b/both")) == "both");
    REQUIRE(::umount2(image.path("b").c_str(), 0) == 0);
    CHECK(second.wait());
    CHECK_FALSE(second.failure().has_value());
    CHECK(second.release().has_value());
  }
}

TEST_CASE("What cannot be mounted leaves nothing", "[mount][error]") {
  if (skip()) return;
  auto const zeros = []() -> Result<MountableImage> { return AnySource(Memory(Bytes(1 << 20))); };
  for (auto const way : ways()) {
    INFO(name_of(way));
    Image const image;
    auto const before = testing::threads();
    CHECK_FALSE(ImageMount::open(zeros, image.path("a"), by(way)).has_value());
    auto const nowhere = ImageMount::open(image.open(), image.path("none"), by(way));
    CHECK(nowhere.error().code == std::errc::no_such_file_or_directory);
    {
      auto const mount = ImageMount::open(image.open(), image.path("a"), by(way)).value();
      CHECK(mount.share(image.path("none")).error().code == std::errc::no_such_file_or_directory);
      CHECK(text_of(image.path("a/both")) == "both");
    }
    CHECK(testing::are_left(before));
    CHECK(image.is_unmounted());
  }
}

}  // namespace image_mount_test
}  // namespace erofs_oci
