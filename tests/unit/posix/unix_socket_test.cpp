// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/unix_socket.hpp>  // first: proves that the header stands alone

#include <fstream>

#include <catch.hpp>

#include <erofs_oci/posix/temporary_directory.hpp>

namespace erofs_oci {
namespace unix_socket_test {

bool connects(UnixAddress const& address, int type) {
  UniqueFd const fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  return ::connect(fd.get(), address.get(), address.size()) == 0;
}

TEST_CASE("A unix socket listens for its owner only", "[posix][unix_socket]") {
  auto const directory = TemporaryDirectory::make("/tmp/erofs_oci-test-").value();
  auto const path = directory.path() + "/s";
  auto const type = GENERATE(SOCK_STREAM, SOCK_SEQPACKET);

  auto const fd = listen_unix(path, type, 4);

  REQUIRE(fd.has_value());
  CHECK((::fcntl(fd->get(), F_GETFD) & FD_CLOEXEC) != 0);
  struct stat status{};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
  CHECK(connects(UnixAddress::at(path).value(), type));
  ::unlink(path.c_str());
}

TEST_CASE("A dead socket is replaced, a living one only if told, and anything else never",
          "[posix][unix_socket]") {
  auto const directory = TemporaryDirectory::make("/tmp/erofs_oci-test-").value();
  auto const path = directory.path() + "/s";
  auto const type = GENERATE(SOCK_STREAM, SOCK_SEQPACKET);

  REQUIRE(listen_unix(path, type, 4).has_value());  // it dies at once
  auto const first = listen_unix(path, type, 4);
  REQUIRE(first.has_value());
  CHECK(listen_unix(path, type, 4).error().code == std::errc::address_in_use);
  auto const second = listen_unix(path, type, 4, OldSocket::replace);
  CHECK(second.has_value());
  ::unlink(path.c_str());

  std::ofstream(path) << "data";
  for (auto const old : {OldSocket::replace_dead, OldSocket::replace}) {
    CHECK(listen_unix(path, type, 4, old).error().code == std::errc::address_in_use);
  }
  ::unlink(path.c_str());
}

TEST_CASE("An address must fit", "[posix][unix_socket][error]") {
  CHECK(UnixAddress::at(std::string(107, 'a')).has_value());
  CHECK(UnixAddress::at(std::string(108, 'a')).error().code == std::errc::filename_too_long);
  CHECK(UnixAddress::at("").error().code == std::errc::invalid_argument);
  CHECK(UnixAddress::abstract(std::string(108, 'a')).error().code == std::errc::filename_too_long);
}

TEST_CASE("An abstract name is no file", "[posix][unix_socket]") {
  auto const name = "erofs_oci-test-" + std::to_string(::getpid());
  auto const address = UnixAddress::abstract(name).value();
  UniqueFd const fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(fd.get(), address.get(), address.size()) == 0);
  REQUIRE(::listen(fd.get(), 1) == 0);
  CHECK(connects(address, SOCK_STREAM));
  CHECK(::access(name.c_str(), F_OK) != 0);
}

}  // namespace unix_socket_test
}  // namespace erofs_oci
