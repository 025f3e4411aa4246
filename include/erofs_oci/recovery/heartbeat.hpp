// SPDX-License-Identifier: Apache-2.0
/// @file
/// Heartbeat: how a daemon tells its supervisor that it is well.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// The daemon's end. Each sign is one byte on a stream socket; no call blocks or fails, for a
/// daemon must go on without its supervisor. Send signs from the main thread, which HangCheck looks
/// at, and only while requests are taken and answered, or a hang goes unseen.
///
/// @par Thread safety
/// All const members, from any thread.
class Heartbeat {
 public:
  static constexpr char answered_sign = 'a';  ///< a first read was answered
  static constexpr char beat_sign = 'b';      ///< still well, and nothing to do
  static constexpr char busy_sign = 'w';      ///< still well, and at work
  static constexpr char finished_sign = 'f';  ///< the device is gone; the end comes next

  /// Owns the descriptor that pair() gave, perhaps before fork(2) and exec(2).
  explicit Heartbeat(UniqueFd fd) noexcept : fd_(std::move(fd)) {}

  /// Two connected sockets, the daemon's and then the supervisor's; both close-on-exec and
  /// non-blocking.
  /// @error{an errno, as socketpair(2)}
  [[nodiscard]] static Result<std::pair<Heartbeat, UniqueFd>> pair() {
    std::array<int, 2> fds{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds.data()) != 0) {
      return fail_errno(errno, "socketpair");
    }
    return std::pair(Heartbeat(UniqueFd(fds[0])), UniqueFd(fds[1]));
  }

  /// Only after a read of the device was answered, not when it is merely ready.
  void answered() const noexcept { send(answered_sign); }

  /// Several times within SupervisionOptions::hung_after; while `busy`, within
  /// SupervisionOptions::suspect_after.
  void beat(bool busy = false) const noexcept { send(busy ? busy_sign : beat_sign); }

  /// Once the kernel has said that the device is disconnected.
  void finished() const noexcept { send(finished_sign); }

  /// For exec(2), whose caller clears FD_CLOEXEC.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  // A full socket means a supervisor that does not look; it has signs enough.
  void send(char sign) const noexcept {
    while (::send(fd_.get(), &sign, 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EINTR) {}
  }

  UniqueFd fd_;
};

/// The signs that have come, into `buffer`; empty once the daemon's end is closed. No sign yet is
/// an empty text.
[[nodiscard]] inline std::optional<std::string_view> receive_signs(UniqueFd const& fd,
                                                                   std::array<char, 256>& buffer) {
  for (;;) {
    auto const n = ::recv(fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n > 0) return std::string_view(buffer.data(), static_cast<std::size_t>(n));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::string_view();
    return std::nullopt;
  }
}

}  // namespace erofs_oci
