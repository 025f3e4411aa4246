// SPDX-License-Identifier: Apache-2.0
/// @file
/// WorkerProcess: the present worker of a mount.
#pragma once

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/mount/mount_channel.hpp>
#include <erofs_oci/nbd/read_table.hpp>
#include <erofs_oci/nbd/wakeup.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/posix/signals.hpp>
#include <erofs_oci/posix/wait.hpp>
#include <erofs_oci/recovery/heartbeat.hpp>
#include <erofs_oci/recovery/process.hpp>
#include <erofs_oci/recovery/supervisor.hpp>

namespace erofs_oci {

/// What a worker begins with.
struct WorkerSeat {
  MountChannel channel;    ///< to the supervisor
  Heartbeat heartbeat;     ///< to the supervisor
  bool is_thread = false;  ///< of the supervisor's process, which it leaves as it is
};

/// A child, or a thread, that reads the image. There is one at a time. A Supervisor sees when a
/// child has ended, and reaps it.
///
/// @par Thread safety
/// None: one thread.
class WorkerProcess {
 public:
  /// What a worker does; yields its exit status.
  using Work = std::function<int(WorkerSeat)>;

  /// None yet. Takes SIGCHLD for this thread; see Signals.
  /// @error{an errno, as signalfd(2)}
  [[nodiscard]] static Result<WorkerProcess> make() {
    EROFS_OCI_TRY_ASSIGN(auto children, Signals::take({SIGCHLD}));
    EROFS_OCI_TRY_ASSIGN(auto thread_end, nbd::Wakeup::open());
    return WorkerProcess(std::move(children), std::move(thread_end));
  }

  /// Forks a worker, which has no descriptor of this process but the standard ones, its seat's and
  /// `keep`. The one before has been reaped.
  /// @error{an errno, as fork(2) and socketpair(2)}
  [[nodiscard]] Result<SupervisedDaemon> start(Work const& work, std::vector<int> keep = {}) {
    EROFS_OCI_TRY_ASSIGN(auto heartbeat, Heartbeat::pair());
    EROFS_OCI_TRY_ASSIGN(auto channels, MountChannel::make());
    auto const child = ::fork();
    if (child < 0) return fail_errno(errno, "fork");
    if (child == 0) {
      keep.push_back(heartbeat.first.fd());
      keep.push_back(channels.second.fd());
      close_all_but(std::move(keep));
      Signals::give_back(SIGCHLD);
      std::_Exit(work({std::move(channels.second), std::move(heartbeat.first)}));
    }
    EROFS_OCI_TRY_ASSIGN(pidfd_, open_pidfd_or_end(child));
    channel_.emplace(std::move(channels.first));
    pid_ = child;
    ++starts_;
    return SupervisedDaemon{child, std::move(heartbeat.second)};
  }

  /// Starts the only worker as a thread of this process.
  /// @error{an errno, as socketpair(2)}
  [[nodiscard]] Result<void> start_thread(Work work) {
    EROFS_OCI_TRY_ASSIGN(auto heartbeat, Heartbeat::pair());
    EROFS_OCI_TRY_ASSIGN(auto channels, MountChannel::make());
    channel_.emplace(std::move(channels.first));
    ++starts_;
    WorkerSeat seat{std::move(channels.second), std::move(heartbeat.first), true};
    thread_ = std::jthread(
        [seat = std::move(seat), work = std::move(work), end = thread_end_.get()]() mutable {
          static_cast<void>(work(std::move(seat)));  // it has told what has failed
          end->notify();
        });
    return {};
  }

  /// To poll for POLLIN: the thread has ended.
  [[nodiscard]] int thread_end_fd() const noexcept { return thread_end_->fd(); }

  /// @name The channel to it
  /// @{

  /// To poll for POLLIN; -1 once it is closed.
  [[nodiscard]] int fd() const noexcept { return channel_ ? channel_->fd() : -1; }

  /// Takes a message; empty if the worker has closed its end: from then on fd() is -1.
  [[nodiscard]] std::optional<MountMessage> receive() {
    if (!channel_) return std::nullopt;
    auto message = channel_->receive();
    if (message) return *std::move(message);
    channel_.reset();
    return std::nullopt;
  }

  /// @error{std::errc::not_connected, the channel is closed}
  /// @error{as MountChannel::send(), as there}
  [[nodiscard]] Result<void> send(MountMessage const& message) const {
    if (!channel_) return fail_errno(ENOTCONN, "worker");
    return channel_->send(message);
  }
  /// @}

  /// @name The process
  /// @{

  /// Of the present worker, or of the last. It may be another process's by now: to be shown, and
  /// not to be sent signals.
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }

  /// To poll for POLLIN: a child has been stopped, or has ended.
  [[nodiscard]] int child_fd() const noexcept { return children_->fd(); }

  /// If the worker was stopped by a signal, resumes it, since the kernel waits for it; yields
  /// whether it did.
  bool resume_stopped() const {
    static_cast<void>(children_->take_pending());
    if (!pidfd_ || !is_stopped(pidfd_)) return false;
    signal(SIGCONT);
    return true;
  }

  /// Kills it.
  void kill() const { signal(SIGKILL); }

  /// Asks it to end, waits up to 3 s, kills it if it has not ended, and reaps it. A thread is
  /// joined. It may have been reaped already.
  void stop() {
    if (thread_.joinable()) {
      if (channel_) ::shutdown(channel_->fd(), SHUT_RDWR);
      thread_.join();
    }
    auto const pidfd = std::exchange(pidfd_, {});
    if (!pidfd) return;
    static_cast<void>(send_signal(pidfd, SIGTERM));
    pollfd wait{pidfd.get(), POLLIN, 0};
    auto const patience_ends = std::chrono::steady_clock::now() + std::chrono::seconds(3);
    if (!poll_until({&wait, 1}, patience_ends).value_or(false)) {
      static_cast<void>(send_signal(pidfd, SIGKILL));
      while (::poll(&wait, 1, -1) < 0 && errno == EINTR) {}
    }
    static_cast<void>(reap(pidfd));
  }
  /// @}

  /// @name How it ended
  /// @{

  /// It is killed because it hangs.
  void note_hang() noexcept { hung_ = true; }

  /// It was reaped.
  void note_end(ProcessExit const& exit) noexcept {
    pidfd_.reset();
    auto const hung = std::exchange(hung_, false);
    auto const crashed = exit.signal && *exit.signal != SIGKILL && *exit.signal != SIGTERM;
    end_ = hung || crashed ? nbd::EngineEnd::crashed : nbd::EngineEnd::killed;
  }

  /// Whether the last one may have ended by something that it was asked.
  [[nodiscard]] nbd::EngineEnd end() const noexcept { return end_; }
  /// @}

  /// How many came after the first one.
  [[nodiscard]] unsigned restarts() const noexcept { return starts_ == 0 ? 0 : starts_ - 1; }

 private:
  WorkerProcess(Signals children, nbd::Wakeup thread_end)
      : children_(std::make_unique<Signals>(std::move(children))),
        thread_end_(std::make_unique<nbd::Wakeup>(std::move(thread_end))) {}

  void signal(int number) const {
    if (pidfd_) static_cast<void>(send_signal(pidfd_, number));
  }

  std::unique_ptr<Signals> children_;  // SIGCHLD
  std::unique_ptr<nbd::Wakeup> thread_end_;
  std::optional<MountChannel> channel_;
  pid_t pid_ = -1;
  UniqueFd pidfd_;  // until it is reaped
  unsigned starts_ = 0;
  bool hung_ = false;
  nbd::EngineEnd end_ = nbd::EngineEnd::killed;
  std::jthread thread_;
};

}  // namespace erofs_oci
