// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/fuse/fuse_file.hpp>  // first: proves that the header stands alone

#include <latch>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <sys/stat.h>

#include <catch.hpp>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/source/zeros.hpp>
#include <erofs_oci/testing/flaky.hpp>

#include "fake_kernel.hpp"

namespace erofs_oci {
namespace fuse_file_test {

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

TEST_CASE("FuseFile lets the kernel cache or not, as the options say", "[fuse][file]") {
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

/// Reads that end, in an error, when they are told to.
struct Stuck {
  std::latch* begun;
  std::stop_token ends;

  [[nodiscard]] std::uint64_t size() const noexcept { return 1000; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t, std::span<std::byte>) const {
    begun->count_down();
    std::latch over(1);
    std::stop_callback const release(ends, [&] { over.count_down(); });
    over.wait();
    return fail(Errc::stopping, "stuck");
  }
};

TEST_CASE("What fails because a server leaves is answered by the next one",
          "[fuse][file][takeover]") {
  FakeKernel kernel;
  std::latch begun(1);
  std::latch ready(1);
  std::stop_source stop;
  std::stop_source ends;
  auto failures = 0;
  FuseFileOptions options;
  options.serve.threads = 1;
  options.serve.on_failure = [&](FuseFailure const&) { ++failures; };
  options.serve.leave = stop.get_token();
  options.serve.on_end = [&] { ends.request_stop(); };
  FuseFile<AnySource> first(AnySource(Stuck{&begun, ends.get_token()}), options);
  std::optional<FuseConnection> left;
  Result<FuseEnd> end;
  std::thread thread([&] {
    auto const begin = [&](FuseSession& session) {
      left = session.share().value();
      ready.count_down();
    };
    end = first.serve(kernel.connection(), stop.get_token(), begin, [] {});
  });
  kernel.init();
  auto const node = kernel.lookup(root, "image").as<fuse_entry_out>().nodeid;
  ready.wait();
  fuse_read_in in{};
  in.size = 4096;
  auto const unique = kernel.send(FUSE_READ, node, raw(in));
  begun.wait();

  stop.request_stop();
  thread.join();

  CHECK(end.value() == FuseEnd::stopped);
  CHECK(failures == 0);
  FuseFile<AnySource> second{AnySource(Memory(pattern(1000)))};
  test::Serving serving([&](auto other_stop, auto begin, auto on_stop) {
    return second.serve(*std::move(left), std::move(other_stop), begin, on_stop);
  });
  CHECK(kernel.receive().unique == 2);  // of its first request, which it drops
  auto const answer = kernel.receive();
  CHECK(answer.unique == unique);
  CHECK(answer.body == pattern(1000));
  kernel.hang_up();
  CHECK(serving.end().has_value());
}

}  // namespace fuse_file_test
}  // namespace erofs_oci
