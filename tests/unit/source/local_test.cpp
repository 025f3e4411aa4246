// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/source/local.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>

#include <sys/stat.h>
#include <sys/syscall.h>

#include <catch.hpp>
#include <rapidcheck/catch.h>
#include <scratch.hpp>

#include <erofs_oci/testing/laws.hpp>

namespace local_test_libc {

/// What the kernel does with pread(2) in this program.
enum class Kernel { kind, interrupts, reads_little, fails_later };
std::atomic<Kernel> kernel{Kernel::kind};
std::atomic<unsigned> preads{0};

}  // namespace local_test_libc
using namespace local_test_libc;

/// Stands in front of libc's: regular files are neither interrupted nor read in part otherwise.
extern "C" ssize_t pread(int fd, void* out, std::size_t n, off_t offset) {
  auto const turn = preads.fetch_add(1);
  if (kernel == Kernel::interrupts && turn % 2 == 0) {
    errno = EINTR;
    return -1;
  }
  if (kernel == Kernel::fails_later && turn > 0) {
    errno = EIO;
    return -1;
  }
  if (kernel == Kernel::reads_little || kernel == Kernel::fails_later) n = n > 3 ? 3 : n;
  return ::syscall(SYS_pread64, fd, out, n, offset);
}

namespace erofs_oci {
namespace local_test {

namespace fs = std::filesystem;

/// Sets what the kernel does, for one scope.
struct Behave {
  explicit Behave(Kernel how) {
    preads = 0;
    kernel = how;
  }
  Behave(Behave const&) = delete;
  Behave& operator=(Behave const&) = delete;
  ~Behave() { kernel = Kernel::kind; }
};

/// Writes a file; yields its path.
[[nodiscard]] std::string file_in(test::Scratch const& directory, Bytes const& bytes) {
  auto path = directory / "file";
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << as_text(bytes);
  return path;
}

TEST_CASE("Local reads as its file, however the kernel behaves", "[source][local][property]") {
  auto const how = GENERATE(Kernel::kind, Kernel::interrupts, Kernel::reads_little);
  test::Scratch const directory;
  rc::prop("for all bytes", [&] {
    auto const bytes = *testing::any_bytes();
    Behave const scope(how);

    auto source = Local::open(file_in(directory, bytes));

    RC_ASSERT(source.has_value());
    AnySource const any(*std::move(source));
    testing::obeys_laws(any, bytes);
    testing::obeys_laws_concurrently(any, bytes, 2);
    RC_ASSERT(bytes.empty() || preads > 0u);  // else the stand-in was never in front
  });
}

TEST_CASE("Local gives an error when its file has become shorter", "[source][local][error]") {
  test::Scratch const directory;
  auto const path = file_in(directory, testing::patterned_bytes(1000, 1));
  auto const source = Local::open(path);
  REQUIRE(source.has_value());
  fs::resize_file(path, 600);
  Bytes out(500);

  auto const n = source->read_at(500, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::truncated);
  CHECK(n.error().context == path + ": the file ends at offset 600, it had 1000 bytes when opened");
  CHECK(source->read_at(100, out).value() == 500);
  CHECK(source->size() == 1000);
}

TEST_CASE("Local keeps to its size when its file grows", "[source][local]") {
  test::Scratch const directory;
  auto const path = file_in(directory, Bytes(10));
  auto const source = Local::open(path);
  REQUIRE(source.has_value());
  fs::resize_file(path, 1000);
  Bytes out(100);

  CHECK(source->read_at(0, out).value() == 10);
  CHECK(source->read_at(10, out).value() == 0);
}

TEST_CASE("Local names the file and the offset of a failed read", "[source][local][error]") {
  test::Scratch const directory;
  auto const path = file_in(directory, Bytes(10));
  auto const source = Local::open(path);
  REQUIRE(source.has_value());
  Behave const scope(Kernel::fails_later);
  Bytes out(8);

  auto const n = source->read_at(1, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == std::errc::io_error);
  CHECK(n.error().context == path + ": read at offset 4");
}

TEST_CASE("Local refuses what has no size of its own", "[source][local][error]") {
  test::Scratch const directory;
  auto const fifo = directory / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  for (auto const& path : {fifo, directory / ".", std::string("/dev/zero")}) {
    auto const source = Local::open(path);  // a FIFO without a writer must not hang it

    REQUIRE_FALSE(source.has_value());
    CHECK(source.error().code == Errc::unsupported);
    CHECK(source.error().context == path + ": neither a regular file nor a block device");
  }
}

TEST_CASE("Local passes the error of open on", "[source][local][error]") {
  auto const source = Local::open("/nonexistent/file");

  REQUIRE_FALSE(source.has_value());
  CHECK(source.error().code == std::errc::no_such_file_or_directory);
}

}  // namespace local_test
}  // namespace erofs_oci
