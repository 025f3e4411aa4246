// SPDX-License-Identifier: Apache-2.0
#include "link.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <system_error>

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;

constexpr std::size_t longest = 32 * 1024;  // bytes of a message
constexpr std::size_t most_fds = 4;         // that come with one

/// Room for a control message, aligned as it must be.
union ControlBuffer {
  cmsghdr header;
  std::array<char, CMSG_SPACE(most_fds * sizeof(int))> bytes;
};

/// Takes over what came along.
std::vector<UniqueFd> received_fds(msghdr& message) {
  std::vector<UniqueFd> fds;
  for (auto* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    auto const count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      fds.emplace_back(fd);
    }
  }
  return fds;
}

/// `KIND CATEGORY CODE TEXT`; CATEGORY is E for our own errors and S for the system's.
std::string encode(Message const& message) {
  auto const own = message.error.code.category() == erofs_oci::errc_category();
  auto const& text = message.kind == Message::Kind::failed ? message.error.context : message.text;
  auto line = std::string{static_cast<char>(message.kind), own ? 'E' : 'S'} +
              std::to_string(message.error.code.value()) + " " + text;
  line.resize(std::min(line.size(), longest));
  return line;
}

std::optional<Message> decode(std::string_view line) {
  if (line.size() < 4) return std::nullopt;
  Message message;
  message.kind = static_cast<Message::Kind>(line[0]);
  int code = 0;
  auto const* end = line.data() + line.size();
  auto const [at, problem] = std::from_chars(line.data() + 2, end, code);
  if (problem != std::errc{} || at == end || *at != ' ') return std::nullopt;
  message.text = std::string(at + 1, end);
  if (message.kind == Message::Kind::failed) {
    if (line[1] == 'E') {
      message.error.code = std::error_code(code, erofs_oci::errc_category());
    } else {
      message.error.code = std::error_code(code, std::system_category());
    }
    message.error.context = message.text;
  }
  return message;
}

}  // namespace

Result<std::pair<Link, Link>> Link::make() {
  std::array<int, 2> fds{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds.data()) != 0) {
    return fail_errno(errno, "socketpair");
  }
  return std::pair(Link(UniqueFd(fds[0])), Link(UniqueFd(fds[1])));
}

void Link::send(Message const& message) const noexcept {
  auto line = encode(message);
  iovec bytes{line.data(), line.size()};
  ControlBuffer control{};
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  if (auto const count = std::min(message.fds.size(), most_fds); count != 0) {
    header.msg_control = &control;
    header.msg_controllen = CMSG_SPACE(count * sizeof(int));
    auto* const part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::array<int, most_fds> fds{};
    for (std::size_t i = 0; i < count; ++i) fds.at(i) = message.fds[i].get();
    std::memcpy(CMSG_DATA(part), fds.data(), count * sizeof(int));
  }
  [[maybe_unused]] auto const n = ::sendmsg(fd_.get(), &header, MSG_NOSIGNAL);
}

Result<Message> Link::receive_within(std::chrono::milliseconds patience) const {
  pollfd wait{fd_.get(), POLLIN, 0};
  if (::poll(&wait, 1, static_cast<int>(patience.count())) == 0) {
    return fail(Errc::timed_out, "the other process");
  }
  return receive();
}

Result<Message> Link::receive() const {
  std::string line(longest, '\0');
  iovec bytes{line.data(), line.size()};
  ControlBuffer control{};
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  header.msg_control = &control;
  header.msg_controllen = sizeof control;
  ssize_t n = -1;
  do {
    n = ::recvmsg(fd_.get(), &header, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n == 0) return fail(Errc::unavailable, "the other process has ended");
  if (n < 0) return fail_errno(errno, "the other process");
  auto fds = received_fds(header);
  line.resize(static_cast<std::size_t>(n));
  auto message = decode(line);
  if (!message) return fail(Errc::protocol, "the other process");
  message->fds = std::move(fds);
  return *std::move(message);
}

}  // namespace mount_oci
