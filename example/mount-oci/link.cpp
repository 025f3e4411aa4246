// SPDX-License-Identifier: Apache-2.0
#include "link.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <system_error>

#include <sys/socket.h>

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;

constexpr std::size_t longest = 32 * 1024;  // bytes of a message

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
  auto const line = encode(message);
  [[maybe_unused]] auto const n = ::send(fd_.get(), line.data(), line.size(), MSG_NOSIGNAL);
}

Result<Message> Link::receive() const {
  std::string line(longest, '\0');
  for (;;) {
    auto const n = ::recv(fd_.get(), line.data(), line.size(), 0);
    if (n > 0) {
      line.resize(static_cast<std::size_t>(n));
      break;
    }
    if (n == 0) return fail(Errc::unavailable, "the other process has ended");
    if (errno != EINTR) return fail_errno(errno, "the other process");
  }
  auto message = decode(line);
  if (!message) return fail(Errc::protocol, "the other process");
  return *std::move(message);
}

}  // namespace mount_oci
