// SPDX-License-Identifier: Apache-2.0
/// @file
/// Signals: signals as a descriptor that poll(2) knows.
#pragma once

#include <array>
#include <cerrno>
#include <csignal>
#include <initializer_list>
#include <utility>

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// Turns signals into a readable descriptor, for this thread and all that it starts; ignores
/// SIGPIPE.
///
/// @par Thread safety
/// All const members, from any thread; each signal is taken once.
class Signals {
 public:
  /// Blocks the signals: from here on they come only this way, in this thread, in those that it
  /// starts and in forks.
  /// @error{an errno, as signalfd(2)}
  [[nodiscard]] static Result<Signals> take(std::initializer_list<int> numbers = {SIGTERM,
                                                                                  SIGINT}) {
    std::signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    for (auto const number : numbers) sigaddset(&set, number);
    if (auto const number = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); number != 0) {
      return fail_errno(number, "signals");
    }
    UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd) return fail_errno(errno, "signals");
    return Signals(std::move(fd));
  }

  /// Unblocks a signal in the calling thread: for a fork that expects its usual effect.
  static void give_back(int number) noexcept {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  }

  /// Readable when a signal has come.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  /// Takes a signal, if one is there; yields its number, or 0. Does not block: a thread that does
  /// not block the signal may take it after fd() was readable.
  [[nodiscard]] int take_pending() const noexcept {
    signalfd_siginfo info{};
    for (;;) {
      auto const n = ::read(fd_.get(), &info, sizeof info);
      if (n == sizeof info) return static_cast<int>(info.ssi_signo);
      if (n < 0 && errno == EAGAIN) return 0;
      if (n < 0 && errno != EINTR) return SIGTERM;
    }
  }

  /// Waits for a signal and takes it; yields its number.
  [[nodiscard]] int wait() const noexcept {
    for (;;) {
      if (auto const number = take_pending(); number != 0) return number;
      pollfd come{fd_.get(), POLLIN, 0};
      static_cast<void>(::poll(&come, 1, -1));
    }
  }

  /// Waits for a signal, but no longer than until `other` is readable; yields whether one came.
  [[nodiscard]] bool wait_or(int other) const noexcept {
    std::array<pollfd, 2> fds{{{fd_.get(), POLLIN, 0}, {other, POLLIN, 0}}};
    for (;;) {
      if (::poll(fds.data(), fds.size(), -1) < 0) {
        if (errno != EINTR) return true;
      } else if (fds[0].revents == 0) {
        return false;
      } else if (take_pending() != 0) {
        return true;
      }
    }
  }

 private:
  explicit Signals(UniqueFd fd) noexcept : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace erofs_oci
