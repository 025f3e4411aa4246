// SPDX-License-Identifier: Apache-2.0
// Bytes of clients of the metrics' socket, in pieces: each gets one whole answer or none, and the
// text once it has asked. Input: pieces behind a byte that says whose they are and one with the
// length.
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/socket.h>

#include <erofs_oci/posix/unix_socket.hpp>
#include <metrics.hpp>

#include "input.hpp"

namespace {

using namespace erofs_oci;

void act(mount_oci::ClientSockets& sockets) {
  for (int i = 0; i < 4; ++i) {
    std::vector<pollfd> fds;
    sockets.watch(fds);
    if (::poll(fds.data(), fds.size(), 0) <= 0) return;
    sockets.act(fds);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static fuzz::Scratch const directory;
  auto const path = directory.path() + "/metrics";
  auto sockets = mount_oci::listen_metrics(path, [] { return std::string("a 1\n"); });
  fuzz::require(sockets.has_value());

  auto const address = UnixAddress::at(path);
  fuzz::require(address.has_value());
  struct Client {
    UniqueFd fd;
    std::string sent{};
  };
  std::vector<Client> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back({UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))});
    fuzz::require(::connect(clients.back().fd.get(), address->get(), address->size()) == 0);
    act(*sockets);
  }
  fuzz::Input input(data, size);
  while (!input.empty()) {
    auto& client = clients[input.byte() % clients.size()];
    auto const piece = input.bytes(input.byte());
    if (::send(client.fd.get(), piece.data(), piece.size(), MSG_NOSIGNAL | MSG_DONTWAIT) > 0) {
      client.sent += as_text(piece);
    }
    act(*sockets);
  }
  for (auto const& client : clients) {
    std::array<char, 4096> buffer{};
    auto const n = ::recv(client.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    auto const end = client.sent.find("\r\n\r\n");
    auto const asked = end != client.sent.npos && end < 7000;
    fuzz::require(!asked || n > 0);
    if (n <= 0) continue;
    auto const answer = std::string(buffer.data(), static_cast<std::size_t>(n));
    fuzz::require(end != client.sent.npos);
    fuzz::require(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("\r\n\r\na 1\n"));
  }
  return 0;
}
