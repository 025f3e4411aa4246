// SPDX-License-Identifier: Apache-2.0
/// @file
/// Link: how the process that serves and the process that mounts tell each other how far they are.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "process.hpp"

namespace mount_oci {

/// One message of a Link.
struct Message {
  enum class Kind : char {
    device = 'D',   ///< the server has a device: its path
    mounted = 'M',  ///< it is mounted and files can be read: the target's absolute path
    settled = 'S',  ///< the server needs the other no more; the text is a warning or empty
    failed = 'F',   ///< it failed; see `error`
    opened = 'O',   ///< the worker can read the image: a descriptor of the encoded record
    port = 'P',     ///< the worker may begin: descriptors of a RelayPort; or of a FUSE connection,
                    ///< or none if it is to be mounted
    connected = 'C',  ///< a FUSE connection, which is mounted
    sockets = 'K',    ///< a device's sockets, each with a memory file of what is unread of it
    taken = 'A',      ///< whoever got a mount serves it
    counts = 'B',     ///< WorkerCounts of the worker
    trouble = 'T',    ///< a read has failed: why
  };
  Kind kind = Kind::failed;
  std::string text{};
  Error error{};
  std::vector<UniqueFd> fds{};  ///< that come along; receive() makes new ones
};

/// One end of a connection between two processes. When the other process ends, receive() fails.
class Link {
 public:
  /// Both ends.
  /// @error{an errno, as socketpair(2)}
  [[nodiscard]] static Result<std::pair<Link, Link>> make();

  /// An end that came about elsewhere: a socket of type SOCK_SEQPACKET.
  explicit Link(UniqueFd fd) noexcept : fd_(std::move(fd)) {}

  /// Sends without waiting. A peer that has gone shows at the next receive().
  void send(Message const& message) const noexcept;

  /// Waits for a message.
  /// @error{Errc::unavailable, the other end is closed}
  /// @error{Errc::protocol, no message}
  [[nodiscard]] Result<Message> receive() const;

  /// The same, but no longer than this.
  /// @error{Errc::timed_out, no message in time}
  [[nodiscard]] Result<Message> receive_within(std::chrono::milliseconds patience) const;

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  void close() noexcept { fd_.reset(); }

 private:
  UniqueFd fd_;
};

}  // namespace mount_oci
