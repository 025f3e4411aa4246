// SPDX-License-Identifier: Apache-2.0
// The bytes that a client sends in the transmission phase, to a session over a socketpair. The
// first byte picks what was negotiated. The session must end once the client has gone.
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>

#include <sys/socket.h>

#include <erofs_oci/core/thread_pool.hpp>
#include <erofs_oci/nbd/session.hpp>
#include <erofs_oci/source/zeros.hpp>

namespace {

void drain(int fd) {
  std::byte buffer[65536];
  while (::recv(fd, buffer, sizeof buffer, 0) > 0) {}
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  using namespace erofs_oci;
  if (size == 0) return 0;
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) return 0;
  UniqueFd const client(fds[0]);
  UniqueFd const socket(fds[1]);

  Zeros const source(100'000);
  Export const served{.size = source.size() + 512, .zeros_from = 90'000};
  static ThreadPool workers(2, 256);
  nbd::BufferPool buffers;
  OnReadError const nobody;
  auto wakeup = nbd::Wakeup::open();
  if (!wakeup) return 0;
  NbdSession session(socket.get(), source, served, {workers, buffers, nobody}, *std::move(wakeup),
                     {.structured = (data[0] & 1) != 0, .base_allocation = (data[0] & 2) != 0});
  std::jthread const reader([fd = client.get()] { drain(fd); });
  std::jthread const writer([fd = client.get(), data, size] {
    for (auto rest = std::as_bytes(std::span(data, size)).subspan(1); !rest.empty();) {
      auto const n = ::send(fd, rest.data(), rest.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      rest = rest.subspan(static_cast<std::size_t>(n));
    }
    ::shutdown(fd, SHUT_WR);
  });

  auto const end = session.run({});
  assert(end || end.error().code == Errc::protocol);
  ::shutdown(socket.get(), SHUT_RDWR);
  return 0;
}
