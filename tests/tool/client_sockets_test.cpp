// SPDX-License-Identifier: Apache-2.0
#include "client_sockets.hpp"  // first: proves that the header stands alone

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch.hpp>
#include <child.hpp>

#include <erofs_oci/posix/temporary_directory.hpp>

namespace mount_oci {
namespace client_sockets_test {

using namespace std::chrono_literals;

/// A listening socket in a directory of its own, whose clients are closed at the first byte.
struct Listening {
  erofs_oci::TemporaryDirectory directory =
      erofs_oci::TemporaryDirectory::make("/tmp/erofs_oci-").value();
  std::string path = directory.path() + "/socket";
  std::size_t served = 0;
  ClientSockets sockets{erofs_oci::listen_unix(path, SOCK_STREAM, 64).value(), path, 64,
                        ClientSockets::Full::waits, [this](ClientSockets::Client& client) {
                          char byte = 0;
                          ++served;
                          return ::recv(client.fd.get(), &byte, 1, MSG_DONTWAIT) == 1;
                        }};

  ~Listening() { std::filesystem::remove(path); }

  UniqueFd connect() const {
    auto const address = erofs_oci::UnixAddress::at(path).value();
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return ::connect(fd.get(), address.get(), address.size()) == 0 ? std::move(fd) : UniqueFd();
  }

  /// How often poll(2) has returned with something to do within that time.
  std::size_t rounds(std::chrono::milliseconds time) {
    std::size_t count = 0;
    auto const end = std::chrono::steady_clock::now() + time;
    while (std::chrono::steady_clock::now() < end) {
      std::vector<pollfd> fds;
      sockets.watch(fds);
      if (::poll(fds.data(), fds.size(), 10) > 0) ++count, sockets.act(fds);
    }
    return count;
  }
};

TEST_CASE("A flood of clients does not keep the loop busy", "[tool][client_sockets]") {
  Listening listening;
  std::vector<UniqueFd> clients;
  for (auto i = 0; i < 60; ++i) clients.push_back(listening.connect());
  CHECK(listening.rounds(300ms) == 32);
  CHECK(listening.sockets.count() == 33);
  CHECK(listening.rounds(1000ms) > 20);  // then come the others
  CHECK(listening.sockets.count() == 61);
}

TEST_CASE("A client has a bounded number of rounds", "[tool][client_sockets]") {
  Listening listening;
  auto const client = listening.connect();
  std::string const bytes(1000, 'x');
  REQUIRE(::send(client.get(), bytes.data(), bytes.size(), 0) == 1000);
  CHECK(listening.rounds(200ms) == 65);  // and one to accept it
  CHECK(listening.served == 64);
}

TEST_CASE("Without a descriptor for a client the loop does not spin",
          "[tool][client_sockets][error]") {
  auto const status = erofs_oci::test::in_a_child([] {
    Listening listening;
    auto const client = listening.connect();
    rlimit old{};
    ::getrlimit(RLIMIT_NOFILE, &old);
    rlimit const none{3, old.rlim_max};
    if (!client || ::setrlimit(RLIMIT_NOFILE, &none) != 0) return 1;
    if (listening.rounds(250ms) > 8) return 2;
    ::setrlimit(RLIMIT_NOFILE, &old);
    listening.rounds(250ms);
    return listening.sockets.count() == 2 ? 0 : 3;  // it has waited
  });
  CHECK(status == 0);
}

TEST_CASE("Only the socket's own file is removed", "[tool][client_sockets]") {
  Listening listening;
  SECTION("it is there") {
    listening.sockets = {};
    CHECK_FALSE(std::filesystem::exists(listening.path));
  }
  SECTION("another file has its name") {
    std::filesystem::rename(listening.path, listening.path + ".old");
    std::ofstream(listening.path) << "something else";
    listening.sockets = {};
    CHECK(std::filesystem::exists(listening.path));
    std::filesystem::remove(listening.path + ".old");
  }
}

}  // namespace client_sockets_test
}  // namespace mount_oci
