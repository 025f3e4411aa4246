// SPDX-License-Identifier: Apache-2.0
// The bytes that a client sends in the handshake: once through a socketpair, as the server takes
// them, and once option by option, where every answer must be whole.
#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>

#include <sys/socket.h>

#include <erofs_oci/nbd/negotiate.hpp>

namespace {

using namespace erofs_oci;

Export const& served() {
  static Export const one{.name = "disk", .description = "two layers", .size = 1'000'000};
  return one;
}

void over_a_socket(std::span<std::byte const> bytes) {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) return;
  UniqueFd const client(fds[0]);
  UniqueFd const socket(fds[1]);
  std::jthread const reader([fd = client.get()] {
    std::byte buffer[65536];
    while (::recv(fd, buffer, sizeof buffer, 0) > 0) {}
  });
  std::jthread const writer([fd = client.get(), bytes]() mutable {
    while (!bytes.empty()) {
      auto const n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    ::shutdown(fd, SHUT_WR);
  });
  auto const result = nbd::negotiate(socket.get(), served(), {}, std::chrono::seconds(60));
  assert(result || result.error().code == Errc::protocol);
  ::shutdown(socket.get(), SHUT_RDWR);
}

void option_by_option(std::span<std::byte const> bytes) {
  nbd::Handshake handshake(served());
  while (bytes.size() >= 2) {
    auto const option = nbd::Option{std::to_integer<std::uint32_t>(bytes[0]) % 16};
    auto const length = std::min(std::to_integer<std::size_t>(bytes[1]), bytes.size() - 2);
    Bytes out;
    auto const next = handshake.answer(option, bytes.subspan(2, length), out);
    bytes = bytes.subspan(2 + length);
    if (option == nbd::Option::export_name) {
      assert(out.empty() == (next == nbd::Handshake::Next::close));
    } else {
      nbd::FieldReader fields(out);
      while (!fields.rest().empty()) {
        auto const magic = fields.number<std::uint64_t>();
        assert(magic == nbd::option_reply_magic);
        auto const echoed = fields.number<std::uint32_t>();
        assert(echoed == static_cast<std::uint32_t>(option));
        auto const type = fields.number<std::uint32_t>();
        auto const text = fields.number<std::uint32_t>();
        assert(type && text && *text <= fields.rest().size());
        fields = nbd::FieldReader(fields.rest().subspan(*text));
      }
    }
    if (next != nbd::Handshake::Next::option) return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  auto const bytes = std::as_bytes(std::span(data, size));
  if ((data[0] & 1) != 0) {
    over_a_socket(bytes.subspan(1));
  } else {
    option_by_option(bytes.subspan(1));
  }
  return 0;
}
