// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/socket_listen.hpp>  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>

#include <arpa/inet.h>
#include <catch.hpp>
#include <scratch.hpp>

#include "raw_client.hpp"

namespace erofs_oci::nbd::testing {
namespace socket_listen_test {

TEST_CASE("A unix socket is its owner's alone and goes at the end", "[nbd][socket_listen]") {
  test::Scratch const folder;
  auto const path = folder / "nbd.sock";
  {
    auto const listen = SocketListen::open_unix(path);
    REQUIRE(listen.has_value());

    struct stat status{};
    REQUIRE(::lstat(path.c_str(), &status) == 0);
    CHECK(S_ISSOCK(status.st_mode));
    CHECK((status.st_mode & 07777) == 0600);
    CHECK(listen->port() == 0);
  }

  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("A live socket is not replaced", "[nbd][socket_listen][error]") {
  test::Scratch const folder;
  auto const path = folder / "nbd.sock";
  auto const live = SocketListen::open_unix(path);
  REQUIRE(live.has_value());

  CHECK(SocketListen::open_unix(path).error().code == std::errc::address_in_use);

  CHECK_NOTHROW(connect_unix(path));
}

TEST_CASE("A socket file that nobody listens on is replaced", "[nbd][socket_listen]") {
  test::Scratch const folder;
  auto const path = folder / "nbd.sock";
  {
    UniqueFd const dead(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(dead.get(), reinterpret_cast<sockaddr const*>(&address), sizeof address) == 0);
  }
  REQUIRE(std::filesystem::exists(path));

  auto const listen = SocketListen::open_unix(path);

  REQUIRE(listen.has_value());
  CHECK_NOTHROW(connect_unix(path));
}

TEST_CASE("A file that is no socket is never replaced", "[nbd][socket_listen][error]") {
  test::Scratch const folder;
  auto const path = folder / "precious";
  std::ofstream(path) << "data";

  CHECK(SocketListen::open_unix(path).error().code == std::errc::address_in_use);
  CHECK(std::filesystem::file_size(path) == 4);
}

TEST_CASE("Someone else's socket at the same path is left alone", "[nbd][socket_listen]") {
  test::Scratch const folder;
  auto const path = folder / "nbd.sock";
  {
    auto const listen = SocketListen::open_unix(path);
    REQUIRE(listen.has_value());
    std::filesystem::remove(path);
    std::ofstream(path) << "other";
  }

  CHECK(std::filesystem::exists(path));
}

TEST_CASE("Paths that no socket can have are refused", "[nbd][socket_listen][error]") {
  CHECK(SocketListen::open_unix("").error().code == std::errc::invalid_argument);
  CHECK(SocketListen::open_unix('/' + std::string(107, 'x')).error().code ==
        std::errc::filename_too_long);
  CHECK(SocketListen::open_unix("/no/such/folder/s").error().code ==
        std::errc::no_such_file_or_directory);
}

TEST_CASE("A listener names itself as a URI", "[nbd][socket_listen]") {
  test::Scratch const folder;
  auto const listen = SocketListen::open_unix(folder / "a b&c.sock");
  REQUIRE(listen.has_value());

  CHECK(listen->uri() == "nbd+unix:///?socket=" + folder.path() + "/a%20b%26c.sock");
  CHECK(listen->uri("x/y z").starts_with("nbd+unix:///x/y%20z?socket=/"));
}

TEST_CASE("TCP takes a free port and says which", "[nbd][socket_listen]") {
  auto const listen = SocketListen::open_tcp("127.0.0.1:0");
  REQUIRE(listen.has_value());

  CHECK(listen->port() != 0);
  CHECK(listen->uri() == "nbd://127.0.0.1:" + std::to_string(listen->port()));
  CHECK(listen->uri("disk") == listen->uri() + "/disk");
  CHECK(SocketListen::open_tcp("127.0.0.1:" + std::to_string(listen->port())).error().code ==
        std::errc::address_in_use);
}

TEST_CASE("TCP takes an IPv6 address in brackets", "[nbd][socket_listen]") {
  auto const listen = SocketListen::open_tcp("[::1]:0");
  if (!listen && listen.error().code != Errc::invalid_argument) return;  // a host without IPv6
  REQUIRE(listen.has_value());

  CHECK(listen->uri() == "nbd://[::1]:" + std::to_string(listen->port()));
}

TEST_CASE("Addresses that mean nothing are refused", "[nbd][socket_listen][error]") {
  for (auto const* address : {"", "127.0.0.1", ":10809", "::1:10809", "127.0.0.1:", "127.0.0.1:x",
                              "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:80x", "[::1", "[]:1"}) {
    INFO(address);
    auto const listen = SocketListen::open_tcp(address);
    REQUIRE_FALSE(listen.has_value());
    CHECK(listen.error().code == Errc::invalid_argument);
  }
}

TEST_CASE("attach() waits for a client, or for the stop", "[nbd][socket_listen]") {
  test::Scratch const folder;
  auto const path = folder / "nbd.sock";
  auto listen = SocketListen::open_unix(path);
  REQUIRE(listen.has_value());
  std::stop_source stop;

  auto const client = connect_unix(path);
  CHECK(listen->attach({}, stop.get_token()).value().size() == 1);

  std::jthread const later([&] {
    std::this_thread::sleep_for(50ms);
    stop.request_stop();
  });
  CHECK(listen->attach({}, stop.get_token()).value().empty());
}

}  // namespace socket_listen_test
}  // namespace erofs_oci::nbd::testing
