// SPDX-License-Identifier: Apache-2.0
// A packet to MountChannel with descriptors: a message that encodes and decodes as itself, or an
// error; no descriptor is left open. Input: a byte with their number, the packet.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <erofs_oci/mount/fuse_message.hpp>
#include <erofs_oci/mount/mount_channel.hpp>

#include "input.hpp"

using namespace erofs_oci;

namespace {

constexpr std::size_t most_sent = 8;  // more than a message may have

void send_packet(int to, std::span<std::byte const> packet, std::span<int const> fds) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(most_sent * sizeof(int))> control{};
  iovec bytes{const_cast<std::byte*>(packet.data()), packet.size()};
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(fds.size_bytes());
    auto* const part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(part), fds.data(), fds.size_bytes());
  }
  [[maybe_unused]] auto const n = ::sendmsg(to, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int lowest_free_descriptor() {
  UniqueFd const fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  return fd.get();
}

void receive(fuzz::Input& input) {
  auto ends = MountChannel::make();
  if (!ends) return;
  auto const count = input.byte() % (most_sent + 1);
  auto const packet = input.rest();
  auto const opening = to_memory_file(packet);
  if (!opening) return;
  std::array<int, most_sent> fds{};
  fds.fill(opening->get());
  send_packet(ends->first.fd(), packet, std::span(fds).first(count));
  ends->first.close();

  auto message = ends->second.receive_within(std::chrono::seconds(5));
  if (!message) {
    auto const code = message.error().code;
    fuzz::require(code == Errc::protocol || code == Errc::unavailable);
    return;
  }
  fuzz::require(message->fds.size() == count && count <= MountMessage::most_fds);
  auto const again = detail::decode(detail::encode(*message));
  fuzz::require(again && again->kind == message->kind && again->text == message->text);
  fuzz::require(again->error.code == message->error.code);
  auto const connection = connection_of(*std::move(message));
  fuzz::require(connection.has_value() == (count == 3));
  if (connection) fuzz::require(std::ranges::equal(connection->opening, packet));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const before = lowest_free_descriptor();
  fuzz::Input input(data, size);
  receive(input);
  fuzz::require(lowest_free_descriptor() == before);
  return 0;
}
