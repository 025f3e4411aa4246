// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/fuse/fuse_file.hpp>  // first: proves that the header stands alone

#include <memory>
#include <string>
#include <vector>

#include <sys/stat.h>

#include <catch2/catch.hpp>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/source/zeros.hpp>
#include <erofs_oci/testing/flaky.hpp>

#include "fake_kernel.hpp"

namespace erofs_oci {
namespace {

using test::FakeKernel;
using test::raw;

constexpr std::uint64_t root = FUSE_ROOT_ID;

Bytes pattern(std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 256);
  return bytes;
}

/// A file served to a kernel that is played by the test.
class Served {
 public:
  explicit Served(AnySource source, FuseFileOptions options = {})
      : file_(std::move(source), std::move(options)),
        serving_([this](auto stop, auto ready, auto on_stop) {
          return file_.serve(kernel.connection(), std::move(stop), ready, on_stop);
        }) {
    said = kernel.init();
    node = kernel.lookup(root, "image").as<fuse_entry_out>().nodeid;
  }
  ~Served() {
    kernel.hang_up();
    CHECK(serving_.end().has_value());
  }
  Served(Served const&) = delete;
  Served& operator=(Served const&) = delete;

  FakeKernel kernel;
  fuse_init_out said{};
  std::uint64_t node = 0;

 private:
  FuseFile<AnySource> file_;
  test::Serving serving_;
};

TEST_CASE("FuseFile shows one file of the source's size, for its owner", "[fuse][file]") {
  Served served(AnySource(Memory(pattern(1000))));

  auto const entry = served.kernel.lookup(root, "image").as<fuse_entry_out>();

  CHECK(entry.attr.size == 1000);
  CHECK(entry.attr.mode == (S_IFREG | 0400));
  CHECK(entry.attr.uid == ::geteuid());
  CHECK(entry.attr_valid > 100'000'000);
  fuse_getattr_in in{};
  auto const folder = served.kernel.ask(FUSE_GETATTR, root, raw(in)).as<fuse_attr_out>().attr;
  CHECK(folder.mode == (S_IFDIR | 0500));
  CHECK(served.kernel.lookup(root, "other").as<fuse_entry_out>().nodeid == 0);
  CHECK(served.kernel.lookup(served.node, "image").as<fuse_entry_out>().nodeid == 0);
}

TEST_CASE("FuseFile reads as its source", "[fuse][file]") {
  auto const bytes = pattern(300'000);
  Served served{AnySource(Memory(bytes))};
  auto const [offset, size] = GENERATE(table<std::uint64_t, std::uint32_t>(
      {{0, 300'000}, {0, 1}, {4096, 131'072}, {299'999, 4096}, {300'000, 4096}, {1ULL << 62, 1}}));

  auto const answer = served.kernel.read(served.node, offset, size);

  auto const n = readable(bytes.size(), offset, size);
  CHECK(answer.error == 0);
  CHECK(as_text(answer.body) ==
        as_text(std::span(bytes).subspan(std::min<std::size_t>(offset, bytes.size()), n)));
}

TEST_CASE("FuseFile answers 1 MiB at once", "[fuse][file]") {
  Served served{AnySource(Zeros(5'000'000'000'000))};

  CHECK(served.said.max_pages == 256);
  CHECK(served.kernel.read(served.node, 4'999'999'000'000, 1 << 20).body.size() == 1'000'000);
  CHECK(served.kernel.read(served.node, 1 << 20, 1 << 20).body.size() == 1 << 20);
}

TEST_CASE("FuseFile lists its directory from any place", "[fuse][file]") {
  Served served(AnySource(Memory(pattern(10))));

  auto const all = test::names_of(served.kernel.read(root, 0, 4096, FUSE_READDIR).body, false);

  REQUIRE(all.size() == 3);
  CHECK(all[2].text == "image");
  CHECK(all[2].type == S_IFREG >> 12);
  auto const rest =
      test::names_of(served.kernel.read(root, all[1].next, 4096, FUSE_READDIR).body, false);
  REQUIRE(rest.size() == 1);
  CHECK(rest[0] == all[2]);
  CHECK(served.kernel.read(root, all[2].next, 4096, FUSE_READDIR).body.empty());
}

TEST_CASE("FuseFile leaves caching to whoever was named", "[fuse][file]") {
  fuse_open_in in{};
  SECTION("the kernel") {
    Served served(AnySource(Memory(pattern(10))));
    auto const flags = served.kernel.ask(FUSE_OPEN, served.node, raw(in)).as<fuse_open_out>();
    CHECK((flags.open_flags & FOPEN_KEEP_CACHE) != 0);
    CHECK((flags.open_flags & FOPEN_DIRECT_IO) == 0);
  }
  SECTION("nobody") {
    Served served(AnySource(Memory(pattern(10))), {.cache = FileCache::none});
    auto const flags = served.kernel.ask(FUSE_OPEN, served.node, raw(in)).as<fuse_open_out>();
    CHECK((flags.open_flags & FOPEN_DIRECT_IO) != 0);
  }
}

TEST_CASE("FuseFile reports a failed read and goes on", "[fuse][file][error]") {
  std::vector<std::string> failures;
  FuseFileOptions options;
  options.serve.threads = 1;
  options.serve.on_failure = [&](FuseFailure const& failure) {
    failures.push_back(std::string(failure.operation) + ' ' + std::to_string(failure.offset) + '+' +
                       std::to_string(failure.length) + ' ' + failure.error.message());
  };
  testing::FlakyPlan plan{.first = 0, .count = 1};
  {
    Served served(AnySource(testing::Flaky(Memory(pattern(1000)), plan)), options);

    CHECK(served.kernel.read(served.node, 100, 4096).error == EIO);
    CHECK(served.kernel.read(served.node, 100, 4096).body.size() == 900);
  }
  CHECK(failures == std::vector<std::string>{"read 100+900 flaky: temporarily unavailable"});
}

TEST_CASE("FuseFile answers what it does not know with an error", "[fuse][file]") {
  Served served(AnySource(Memory(pattern(10))));

  CHECK(served.kernel.ask(FUSE_MKDIR, root, raw(fuse_mkdir_in{}) + "x" + '\0').error == ENOSYS);
  CHECK(served.kernel.ask(9999, root).error == ENOSYS);
}

TEST_CASE("A session ends with its kernel, or when it is told to", "[fuse][session]") {
  FuseFile<AnySource> file(AnySource(Memory(pattern(10))));
  FakeKernel kernel;
  test::Serving serving([&](auto stop, auto ready, auto on_stop) {
    return file.serve(kernel.connection(), std::move(stop), ready, on_stop);
  });

  SECTION("before the first request") {
    CHECK(serving.end(true).value() == FuseEnd::stopped);
  }
  SECTION("after it") {
    kernel.init();
    CHECK(serving.end(true).value() == FuseEnd::stopped);
    CHECK(serving.stops() == 1);
  }
  SECTION("by hanging up") {
    kernel.init();
    kernel.hang_up();
    CHECK(serving.end().value() == FuseEnd::unmounted);
    CHECK(serving.stops() == 0);
  }
}

}  // namespace
}  // namespace erofs_oci
