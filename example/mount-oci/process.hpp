// SPDX-License-Identifier: Apache-2.0
/// @file
/// What every command needs from the operating system: signals, messages, secrets, addresses.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/nbd/wakeup.hpp>

namespace mount_oci {

using erofs_oci::Errc;
using erofs_oci::Error;
using erofs_oci::Result;
using erofs_oci::UniqueFd;

/// How important a message is; the numbers are those of `-d`.
enum class Level : std::uint8_t { error = 0, warning = 2, info = 3, debug = 7 };

/// Where messages go: standard error, and once detached the system log.
///
/// @par Thread safety
/// All members, from any thread.
class Log {
 public:
  /// @param verbosity  messages above this level are dropped, 0 to 9
  explicit Log(int verbosity) noexcept : verbosity_(verbosity) {}

  /// Writes one line.
  void say(Level level, std::string_view text) const noexcept;

  /// Writes to syslog(3) from here on.
  void detach() noexcept;

 private:
  int verbosity_;
  std::atomic<bool> detached_{false};
};

/// Turns SIGTERM and SIGINT into a readable descriptor, for this thread and all that it starts;
/// ignores SIGPIPE.
class Signals {
 public:
  /// @error{an errno, as signalfd(2)}
  [[nodiscard]] static Result<Signals> take();

  /// Readable when a signal has come.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  /// Waits for one and takes it; yields its number.
  [[nodiscard]] int wait() const noexcept;

  /// Waits for one, but no longer than until `other` is readable; yields whether one came.
  [[nodiscard]] bool wait_or(int other) const noexcept;

 private:
  explicit Signals(UniqueFd fd) noexcept : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

/// While it lives, a signal ends the process at once: for the time in which there is nothing to
/// clean up yet, but a peer to wait for.
class ExitOnSignal {
 public:
  /// Borrows `signals`.
  /// @error{an errno, as eventfd(2)}
  [[nodiscard]] static Result<ExitOnSignal> make(Signals const& signals);

  ExitOnSignal(ExitOnSignal&&) = default;
  ExitOnSignal& operator=(ExitOnSignal&&) = delete;
  ~ExitOnSignal();

 private:
  explicit ExitOnSignal(std::unique_ptr<erofs_oci::nbd::Wakeup const> over) noexcept
      : over_(std::move(over)) {}

  std::unique_ptr<erofs_oci::nbd::Wakeup const> over_;  // null once moved from
  std::jthread thread_;
};

/// A host and a port, taken apart.
struct Address {
  std::string host;  ///< without the brackets of an IPv6 address
  std::uint16_t port = 0;

  /// `HOST:PORT`, `[IPV6]:PORT` or `:PORT` (loopback).
  /// @error{Errc::invalid_argument, it is none of these}
  [[nodiscard]] static Result<Address> parse(std::string_view text);

  /// As a URL's authority.
  [[nodiscard]] std::string text() const;
};

/// Keeps other users' processes from reading this one's memory, core dumps included.
void hide_memory() noexcept;

/// The exit status of a failure: 1 if the user's words are wrong, else `otherwise`.
[[nodiscard]] int exit_status(Error const& error, int otherwise) noexcept;

}  // namespace mount_oci
