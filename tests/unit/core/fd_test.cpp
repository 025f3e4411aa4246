// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/core/fd.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <array>
#include <csignal>
#include <thread>

#include <pthread.h>

#include <catch.hpp>

#include <erofs_oci/testing/generators.hpp>

namespace erofs_oci {
namespace fd_test {

using namespace std::chrono_literals;

bool is_open(int fd) {
  return ::fcntl(fd, F_GETFD) >= 0;
}

struct Pipe {
  UniqueFd out;
  UniqueFd in;
};

Pipe make_pipe() {
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

TEST_CASE("UniqueFd closes what it owns, once", "[core][fd]") {
  auto pipe = make_pipe();
  auto const first = pipe.out.get();
  auto const second = pipe.in.get();

  SECTION("a moved-from one owns nothing") {
    UniqueFd taken(std::move(pipe.out));
    CHECK(taken.get() == first);
    CHECK_FALSE(pipe.out);  // NOLINT: that is what is asked
    taken.reset();
    CHECK_FALSE(is_open(first));
  }
  SECTION("assignment closes the old one and keeps the new one") {
    pipe.out = std::move(pipe.in);
    CHECK_FALSE(is_open(first));
    CHECK(is_open(second));
  }
  SECTION("assignment to itself keeps it") {
    auto& self = pipe.out;
    pipe.out = std::move(self);
    CHECK(is_open(first));
  }
  SECTION("what is released stays open") {
    auto const fd = pipe.out.release();
    CHECK(fd == first);
    CHECK(is_open(fd));
    ::close(fd);
  }
  CHECK_FALSE(UniqueFd());
  CHECK_FALSE(UniqueFd(-1));
}

TEST_CASE("open_read names the path that it could not open", "[core][fd][error]") {
  auto const fd = open_read("/nonexistent/file");

  REQUIRE_FALSE(fd.has_value());
  CHECK(fd.error().message() == "/nonexistent/file: No such file or directory");
}

TEST_CASE("a whole buffer passes through a pipe that is smaller", "[core][fd]") {
  auto pipe = make_pipe();
  auto const bytes = testing::patterned_bytes(300'000, 1);
  std::jthread const writer([&] {
    if (!write_full(pipe.in.get(), bytes)) std::abort();
    pipe.in.reset();
  });
  Bytes got(bytes.size() + 10);

  auto const n = read_full(pipe.out.get(), got);

  REQUIRE(n.value() == bytes.size());
  got.resize(bytes.size());
  CHECK(got == bytes);
}

TEST_CASE("read_full and write_full go on after a signal", "[core][fd]") {
  struct sigaction ignore{};
  ignore.sa_handler = [](int) {};  // without SA_RESTART: system calls end with EINTR
  struct sigaction before{};
  REQUIRE(::sigaction(SIGUSR1, &ignore, &before) == 0);
  auto pipe = make_pipe();
  auto const bytes = testing::patterned_bytes(200'000, 2);
  Bytes got(bytes.size());
  Result<std::size_t> n;
  Result<void> written;

  std::jthread reader([&] { n = read_full(pipe.out.get(), got); });
  std::this_thread::sleep_for(10ms);
  for (auto i = 0; i < 3; ++i) {
    ::pthread_kill(reader.native_handle(), SIGUSR1);
    std::this_thread::sleep_for(3ms);
  }
  std::jthread writer([&] { written = write_full(pipe.in.get(), bytes); });
  writer.join();
  reader.join();

  CHECK(written.has_value());
  REQUIRE(n.value() == bytes.size());
  CHECK(got == bytes);

  // Now a writer that waits for room.
  std::jthread blocked([&] { written = write_full(pipe.in.get(), bytes); });
  std::this_thread::sleep_for(10ms);
  for (auto i = 0; i < 3; ++i) {
    ::pthread_kill(blocked.native_handle(), SIGUSR1);
    std::this_thread::sleep_for(3ms);
  }
  REQUIRE(read_full(pipe.out.get(), got).value() == bytes.size());
  blocked.join();
  CHECK(written.has_value());
  CHECK(got == bytes);
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_CASE("errors of the kernel are passed on", "[core][fd][error]") {
  Bytes out(1);
  auto const pipe = make_pipe();

  CHECK(read_full(-1, out).error().code == std::errc::bad_file_descriptor);
  CHECK(write_full(-1, out).error().code == std::errc::bad_file_descriptor);
  CHECK(pread_full(-1, 0, out).error().code == std::errc::bad_file_descriptor);
  CHECK(pread_full(pipe.out.get(), 0, out).error().code == std::errc::invalid_seek);
}

TEST_CASE("pread_full reads nothing beyond what off_t can say", "[core][fd]") {
  Bytes out(16);
  auto const zero = open_read("/dev/zero");
  REQUIRE(zero.has_value());

  CHECK(pread_full(zero->get(), std::uint64_t{1} << 63, out).value() == 0);
  CHECK(pread_full(zero->get(), std::uint64_t(-1), out).value() == 0);
  CHECK(pread_full(zero->get(), 5, out).value() == 16);
}

}  // namespace fd_test
}  // namespace erofs_oci
