// SPDX-License-Identifier: Apache-2.0
/// @file
/// Heartbeat: signs of life from a daemon, which is the worker, to its supervisor.
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
#include <erofs_oci/posix/descriptor.hpp>

namespace erofs_oci {

/// The daemon's end. Each sign is one byte on a stream socket; no call blocks or fails, because a
/// daemon must run on without its supervisor. Send signs from the main thread, which HangCheck
/// examines, and only while the daemon takes and answers requests; else the supervisor cannot see a
/// hang.
///
/// @par Thread safety
/// All const members, from any thread.
class Heartbeat {
 public:
  static constexpr char answered_sign = 'a';  ///< the daemon has answered a first read
  static constexpr char beat_sign = 'b';      ///< the daemon has nothing to do
  static constexpr char busy_sign = 'w';      ///< the daemon is at work
  static constexpr char finished_sign = 'f';  ///< the device is gone; the daemon will exit

  /// Owns the descriptor that pair() gave, perhaps before fork(2) and exec(2).
  explicit Heartbeat(UniqueFd fd) noexcept : fd_(std::move(fd)) {}

  /// Two connected sockets, the daemon's and then the supervisor's; both close-on-exec and
  /// non-blocking.
  /// @error{an errno, as socketpair(2)}
  [[nodiscard]] static Result<std::pair<Heartbeat, UniqueFd>> pair() {
    EROFS_OCI_TRY_ASSIGN(auto ends, socket_pair(SOCK_STREAM | SOCK_NONBLOCK));
    return std::pair(Heartbeat(std::move(ends.first)), std::move(ends.second));
  }

  /// To be called after the daemon has answered a read of the device, not when it is only ready.
  void answered() const noexcept { send(answered_sign); }

  /// Several times within SupervisionOptions::hung_after; while `busy`, within
  /// SupervisionOptions::suspect_after.
  void beat(bool busy = false) const noexcept { send(busy ? busy_sign : beat_sign); }

  /// To be called when the kernel has disconnected the device.
  void finished() const noexcept { send(finished_sign); }

  /// For exec(2), whose caller clears FD_CLOEXEC.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  // If the socket is full, the supervisor has signs enough to read.
  void send(char sign) const noexcept {
    while (::send(fd_.get(), &sign, 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EINTR) {}
  }

  UniqueFd fd_;
};

/// Receives the signs that have arrived into `buffer`; an empty optional once the daemon's end is
/// closed, an empty text if there is no sign. Does not block.
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
