// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/descriptor.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>

namespace erofs_oci {
namespace descriptor_test {

bool closes_on_exec(UniqueFd const& fd) {
  return (::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0;
}

TEST_CASE("A duplicate is the same file under a number that no program expects",
          "[posix][descriptor]") {
  auto [ours, theirs] = socket_pair().value();
  auto copy = duplicate(ours.get()).value();

  CHECK(copy.get() > 2);
  CHECK(copy.get() != ours.get());
  CHECK(closes_on_exec(copy));
  ours.reset();
  REQUIRE(write_full(copy.get(), as_bytes("x")));
  Bytes got(1);
  CHECK(read_full(theirs.get(), got).value() == 1);
}

TEST_CASE("What is not open has no duplicate", "[posix][descriptor][error]") {
  CHECK(duplicate(-1).error().code == std::errc::bad_file_descriptor);
}

TEST_CASE("Both ends of a pair of sockets are of the type asked for", "[posix][descriptor]") {
  auto const [one, other] = socket_pair(SOCK_SEQPACKET | SOCK_NONBLOCK).value();

  for (auto const* end : {&one, &other}) {
    int type = 0;
    socklen_t length = sizeof type;
    REQUIRE(::getsockopt(end->get(), SOL_SOCKET, SO_TYPE, &type, &length) == 0);
    CHECK(type == SOCK_SEQPACKET);
    CHECK((::fcntl(end->get(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK(closes_on_exec(*end));
  }
  CHECK(socket_pair(-1).error().code == std::errc::invalid_argument);
}

}  // namespace descriptor_test
}  // namespace erofs_oci
