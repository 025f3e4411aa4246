// SPDX-License-Identifier: Apache-2.0
/// @file
/// MountHandover: the other process that a mount is given to, and what it answers.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <poll.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/mount/mount_channel.hpp>
#include <erofs_oci/mount/mount_machine.hpp>
#include <erofs_oci/posix/timer.hpp>

namespace erofs_oci {

/// One handover at a time, from this process to another one.
///
/// @par Thread safety
/// None: one thread, which polls.
class MountHandover {
 public:
  /// Another process wants the mount.
  void begin(UniqueFd socket) { successor_.emplace(std::move(socket)); }

  /// Sends it what it is to serve. Does not wait.
  /// @param message   kept until end()
  /// @param deadline  of its answer
  /// @error{as MountChannel::send() says: it has got nothing}
  [[nodiscard]] Result<void> send(MountMessage message,
                                  std::chrono::steady_clock::time_point deadline) {
    given_ = std::move(message);
    timer_ = Timer::open().value_or(Timer());
    auto const left =
        std::chrono::ceil<std::chrono::seconds>(deadline - std::chrono::steady_clock::now());
    static_cast<void>(timer_.once(std::max(left, std::chrono::seconds(1))));
    return successor_->send(*given_);
  }

  /// Its answer; empty: none has come.
  [[nodiscard]] std::optional<Confirmation> receive() const {
    auto const answer = successor_->receive_within(std::chrono::milliseconds(0));
    if (answer) {
      auto const taken = answer->kind == MountMessage::Kind::taken;
      return taken ? Confirmation::taken : Confirmation::unknown;
    }
    if (answer.error().code == Errc::timed_out) return std::nullopt;
    auto const ended = answer.error().code == Errc::unavailable;
    return ended ? Confirmation::refused : Confirmation::unknown;
  }

  /// Forgets the other process.
  /// @return what it was sent; empty: nothing
  std::optional<MountMessage> end() {
    successor_.reset();
    timer_ = Timer();
    return std::exchange(given_, std::nullopt);
  }

  /// @name To poll for POLLIN; -1 before send()
  /// @{

  /// receive() has something to tell.
  [[nodiscard]] int fd() const noexcept { return given_ ? successor_->fd() : -1; }

  /// The deadline has passed.
  [[nodiscard]] int timer_fd() const noexcept { return timer_.fd(); }
  /// @}

 private:
  std::optional<MountChannel> successor_;
  std::optional<MountMessage> given_;
  Timer timer_;
};

}  // namespace erofs_oci
