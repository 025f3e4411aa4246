// SPDX-License-Identifier: Apache-2.0
/// @file
/// MountChannel: messages between the processes of a mount.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/posix/wait.hpp>

namespace erofs_oci {

/// One message of a MountChannel.
struct MountMessage {
  static constexpr std::size_t most_fds = 4;  ///< descriptors in a message

  enum class Kind : char {
    opened = 'O',     ///< worker: it can read the image; see OpenedImage
    port = 'P',       ///< supervisor: what the worker serves: descriptors of an nbd::RelayPort, or
                      ///< of a FUSE connection, or none if the worker is to mount
    connected = 'C',  ///< worker: it serves this FUSE connection, which is mounted
    device = 'D',     ///< supervisor: this device can be mounted: its path
    mounted = 'M',    ///< mounting process: it is mounted at this absolute path
    settled = 'S',    ///< supervisor: it needs the other process no more; a warning or empty
    sockets = 'K',    ///< handover: a device's sockets, each with a memory file of what is unread
    taken = 'A',      ///< handover: the process that was given a mount serves it
    counts = 'B',     ///< worker: what it has counted, in words of the program's own
    trouble = 'T',    ///< worker: a read has failed: why
    failed = 'F',     ///< any: it failed; see `error`
  };
  Kind kind = Kind::failed;
  std::string text{};
  Error error{};
  std::vector<UniqueFd> fds{};  ///< that come along; receive() makes new ones
};

namespace detail {

inline constexpr std::size_t longest_message = 32 * 1024;  // bytes of a message

/// Room for a control message, aligned as it must be.
union ControlBuffer {
  cmsghdr header;
  std::array<char, CMSG_SPACE(MountMessage::most_fds * sizeof(int))> bytes;
};

/// Takes over the descriptors of a message.
[[nodiscard]] inline std::vector<UniqueFd> received_fds(msghdr& message) {
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

/// `KIND CATEGORY CODE TEXT`; CATEGORY is E for our own errors and S for the system's, in lower
/// case if the error is explained.
[[nodiscard]] inline std::string encode(MountMessage const& message) {
  auto const own = message.error.code.category() == errc_category();
  auto const& text =
      message.kind == MountMessage::Kind::failed ? message.error.context : message.text;
  auto const category = message.error.explained ? (own ? 'e' : 's') : (own ? 'E' : 'S');
  auto line = std::string{static_cast<char>(message.kind), category} +
              std::to_string(message.error.code.value()) + " " + text;
  line.resize(std::min(line.size(), longest_message));
  return line;
}

[[nodiscard]] inline std::optional<MountMessage> decode(std::string_view line) {
  if (line.size() < 4) return std::nullopt;
  MountMessage message;
  message.kind = static_cast<MountMessage::Kind>(line[0]);
  int code = 0;
  auto const* end = line.data() + line.size();
  auto const [at, problem] = std::from_chars(line.data() + 2, end, code);
  if (problem != std::errc{} || at == end || *at != ' ') return std::nullopt;
  message.text = std::string(at + 1, end);
  if (message.kind == MountMessage::Kind::failed) {
    auto const own = line[1] == 'E' || line[1] == 'e';
    auto const& category = own ? errc_category() : std::system_category();
    message.error = make_error({code, category}, message.text);
    message.error.explained = line[1] == 'e' || line[1] == 's';
  }
  return message;
}

}  // namespace detail

/// One end of a connection between two processes of one program. When the other process ends,
/// receive() fails.
///
/// @par Thread safety
/// All const members, from any thread; a message goes to one receiver.
class MountChannel {
 public:
  /// Both ends.
  /// @error{an errno, as socketpair(2)}
  [[nodiscard]] static Result<std::pair<MountChannel, MountChannel>> make() {
    EROFS_OCI_TRY_ASSIGN(auto ends, socket_pair(SOCK_SEQPACKET));
    return std::pair(MountChannel(std::move(ends.first)), MountChannel(std::move(ends.second)));
  }

  /// Owns an end that was made elsewhere: a socket of type SOCK_SEQPACKET.
  explicit MountChannel(UniqueFd fd) noexcept : fd_(std::move(fd)) {}

  /// Sends without waiting. Text beyond 32 KiB is cut off.
  /// @error{std::errc::argument_list_too_long, more than MountMessage::most_fds descriptors}
  /// @error{an errno, as sendmsg(2): EAGAIN if the other process does not take what was sent
  /// before\, EPIPE if it has gone}
  [[nodiscard]] Result<void> send(MountMessage const& message) const {
    auto const count = message.fds.size();
    if (count > MountMessage::most_fds) return fail_errno(E2BIG, "descriptors for another process");
    auto line = detail::encode(message);
    iovec bytes{line.data(), line.size()};
    detail::ControlBuffer control{};
    msghdr header{};
    header.msg_iov = &bytes;
    header.msg_iovlen = 1;
    if (count != 0) {
      header.msg_control = &control;
      header.msg_controllen = CMSG_SPACE(count * sizeof(int));
      auto* const part = CMSG_FIRSTHDR(&header);
      part->cmsg_level = SOL_SOCKET;
      part->cmsg_type = SCM_RIGHTS;
      part->cmsg_len = CMSG_LEN(count * sizeof(int));
      std::array<int, MountMessage::most_fds> fds{};
      for (std::size_t i = 0; i < count; ++i) fds.at(i) = message.fds[i].get();
      std::memcpy(CMSG_DATA(part), fds.data(), count * sizeof(int));
    }
    while (::sendmsg(fd_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
      if (errno != EINTR) return fail_errno(errno, "the other process");
    }
    return {};
  }

  /// The same for a message that the other process can do without. If it has gone, receive() fails.
  void tell(MountMessage const& message) const { static_cast<void>(send(message)); }

  /// Waits for a message.
  /// @error{Errc::unavailable, the other end is closed}
  /// @error{Errc::protocol, no message\, or descriptors were lost}
  [[nodiscard]] Result<MountMessage> receive() const { return receive(0); }

  /// The same, but no longer than this, whatever signals come.
  /// @error{Errc::timed_out, no message in time}
  [[nodiscard]] Result<MountMessage> receive_within(std::chrono::milliseconds patience) const {
    auto const end = std::chrono::steady_clock::now() + patience;
    for (;;) {
      auto message = receive(MSG_DONTWAIT);
      if (message || message.error().code != std::errc::resource_unavailable_try_again) {
        return message;
      }
      pollfd wait{fd_.get(), POLLIN, 0};
      EROFS_OCI_TRY_ASSIGN(auto const ready, poll_until({&wait, 1}, end));
      if (!ready) return fail(Errc::timed_out, "the other process");
    }
  }

  /// To poll for POLLIN: receive() does not wait. -1 once it is closed.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  void close() noexcept { fd_.reset(); }

 private:
  [[nodiscard]] Result<MountMessage> receive(int flags) const {
    std::string line(detail::longest_message, '\0');
    iovec bytes{line.data(), line.size()};
    detail::ControlBuffer control{};
    msghdr header{};
    header.msg_iov = &bytes;
    header.msg_iovlen = 1;
    header.msg_control = &control;
    header.msg_controllen = sizeof control;
    ssize_t n = -1;
    do {
      n = ::recvmsg(fd_.get(), &header, MSG_CMSG_CLOEXEC | flags);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return fail_errno(errno, "the other process");
    auto fds = detail::received_fds(header);  // those of an empty packet, too, so that they close
    if (n == 0) return fail(Errc::unavailable, "the other process has ended");
    if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
      return fail(Errc::protocol, "the other process: a message that is cut off");
    }
    line.resize(static_cast<std::size_t>(n));
    auto message = detail::decode(line);
    if (!message) return fail(Errc::protocol, "the other process");
    message->fds = std::move(fds);
    return *std::move(message);
  }

  UniqueFd fd_;
};

}  // namespace erofs_oci
