// SPDX-License-Identifier: Apache-2.0
/// @file
/// What every command needs from the operating system: signals, messages, secrets, addresses.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/nbd/wakeup.hpp>
#include <erofs_oci/posix/signals.hpp>

namespace mount_oci {

using erofs_oci::Errc;
using erofs_oci::Error;
using erofs_oci::Result;
using erofs_oci::Signals;
using erofs_oci::UniqueFd;

/// Starts a thread: a jthread that says by an error that it cannot be.
/// @param run  as std::jthread takes it
/// @error{EAGAIN, as pthread_create(3)}
template <class Run>
[[nodiscard]] Result<std::jthread> start_thread(Run run) {
  return erofs_oci::without_throwing(
      [&]() -> Result<std::jthread> { return std::jthread(std::move(run)); });
}

/// How important a message is; the numbers are those of `-d`, from which on it is written.
enum class Level : std::uint8_t {
  error = 0,
  notice = 1,  ///< what a user wants to know without an error
  warning = 2,
  info = 3,
  debug = 7,
};

struct LogOptions;

/// A text with its control bytes, and those of `more`, as `\ooo`: what an image or a server calls
/// its things shall neither steer a terminal nor forge a line of a log.
[[nodiscard]] std::string escaped(std::string_view text, std::string_view more = {});

/// Where messages go: a file if there is one; else standard error, and once detached the system
/// log.
///
/// @par Thread safety
/// All members, from any thread.
class Log {
 public:
  /// @param verbosity  messages above this level are dropped, 0 to 9
  explicit Log(int verbosity) noexcept : verbosity_(verbosity) {}

  /// As the user wants it.
  /// @error{an errno, as open(2) of the file}
  [[nodiscard]] static Result<std::unique_ptr<Log>> open(int verbosity, LogOptions const& options);

  /// Writes one line; control bytes as escaped() has them.
  void say(Level level, std::string_view text) const noexcept;

  /// Whether say() would write it.
  [[nodiscard]] bool says(Level level) const noexcept {
    return static_cast<int>(level) <= verbosity_;
  }

  /// Writes to syslog(3) from here on, unless there is a file.
  void detach() noexcept;

  /// Of the file, which must stay open; or -1.
  [[nodiscard]] int fd() const noexcept { return file_.get(); }

 private:
  int verbosity_;
  bool json_ = false;
  UniqueFd file_;
  std::atomic<bool> detached_{false};
};

/// While it lives, a signal ends the process: at once, or, while a Pause lives, by a stop request
/// to the current work.
class ExitOnSignal {
 public:
  /// For work that checks stop_token() and ends by itself. A second signal, or 3 seconds more, end
  /// the process in any case.
  class Pause {
   public:
    explicit Pause(ExitOnSignal const& guard) noexcept : guard_(guard) {
      guard_.state_->pauses = true;
    }
    Pause(Pause const&) = delete;
    Pause& operator=(Pause const&) = delete;
    ~Pause() { guard_.state_->pauses = false; }

   private:
    ExitOnSignal const& guard_;
  };

  /// Borrows `signals`.
  /// @param peer  a descriptor whose other end's closing counts as a signal, or -1
  /// @error{an errno, as eventfd(2)}
  [[nodiscard]] static Result<ExitOnSignal> make(Signals const& signals, int peer = -1);

  ExitOnSignal(ExitOnSignal&&) = default;
  ExitOnSignal& operator=(ExitOnSignal&&) = delete;
  ~ExitOnSignal();

  /// Asked to stop by a signal that came during a Pause.
  [[nodiscard]] std::stop_token stop_token() const noexcept { return state_->stop.get_token(); }

 private:
  struct State {
    explicit State(erofs_oci::nbd::Wakeup wakeup) : over(std::move(wakeup)) {}
    erofs_oci::nbd::Wakeup over;
    std::atomic<bool> pauses{false};
    std::stop_source stop;
  };

  explicit ExitOnSignal(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
  static void watch(State& state, Signals const& signals, int peer);

  std::unique_ptr<State> state_;  // null once moved from
  std::jthread thread_;           // joined before the eventfd is closed
};

/// Keeps other users' processes from reading this one's memory, core dumps included.
void hide_memory() noexcept;

/// The exit status of a failure: 1 if the command line or a name is wrong, else `otherwise`.
[[nodiscard]] int exit_status(Error const& error, int otherwise) noexcept;

}  // namespace mount_oci
