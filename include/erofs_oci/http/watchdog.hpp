// SPDX-License-Identifier: Apache-2.0
/// @file
/// What keeps an exchange from lasting or killing: a watchdog over sockets, and no SIGPIPE.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <list>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

#include <erofs_oci/core/fd.hpp>

namespace erofs_oci::detail {

using SteadyTime = std::chrono::steady_clock::time_point;

/// Keeps SIGPIPE from this thread while it lives: OpenSSL writes to sockets without MSG_NOSIGNAL,
/// and how a process treats the signal is not ours to change.
class NoSigpipe {
 public:
  NoSigpipe() noexcept {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }

  NoSigpipe(NoSigpipe const&) = delete;
  NoSigpipe& operator=(NoSigpipe const&) = delete;

  ~NoSigpipe() {
    timespec const no_wait{};
    while (!was_pending_ && sigtimedwait(&pipe_, nullptr, &no_wait) < 0 && errno == EINTR) continue;
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t pipe_{};
  sigset_t before_{};
  bool was_pending_ = false;
};

/// Ends what cpp-httplib does not: shuts sockets down when their time is over, and goes on doing so
/// until it is told that the exchange has returned.
class Watchdog {
 public:
  /// One exchange that is watched.
  struct Entry {
    SteadyTime next;
    bool fired = false;
    UniqueFd socket;  // a duplicate: the number cannot have become somebody else's
  };
  using Handle = std::list<Entry>::iterator;

  Watchdog() : thread_([this](std::stop_token stop) { run(stop); }) {}

  Watchdog(Watchdog const&) = delete;
  Watchdog& operator=(Watchdog const&) = delete;

  ~Watchdog() {
    {
      std::lock_guard const lock(mutex_);  // or the thread might miss the notification
      thread_.request_stop();
    }
    changed_.notify_all();
  }

  /// Watches an exchange, at first without a socket, or with the one that it will use.
  [[nodiscard]] Handle add(SteadyTime deadline, UniqueFd socket) {
    std::lock_guard const lock(mutex_);
    entries_.push_front({deadline, false, std::move(socket)});
    // Deadlines mostly grow, so most exchanges need not wake the thread.
    if (deadline < wake_) changed_.notify_all();
    return entries_.begin();
  }

  /// The exchange has a new connection.
  void set_socket(Handle entry, int socket) {
    UniqueFd copy(::fcntl(socket, F_DUPFD_CLOEXEC, 0));
    std::lock_guard const lock(mutex_);
    entry->socket = std::move(copy);
  }

  /// The exchange has returned.
  /// @return the duplicate of its socket, for the next exchange, and whether time was over
  [[nodiscard]] std::pair<UniqueFd, bool> remove(Handle entry) {
    std::lock_guard const lock(mutex_);
    auto out = std::pair(std::move(entry->socket), entry->fired);
    entries_.erase(entry);
    return out;
  }

 private:
  void run(std::stop_token const& stop) {
    std::unique_lock lock(mutex_);
    while (!stop.stop_requested()) {
      auto const now = std::chrono::steady_clock::now();
      wake_ = now + std::chrono::hours(1);
      for (auto& entry : entries_) {
        if (entry.next <= now) {
          entry.fired = true;
          if (entry.socket) ::shutdown(entry.socket.get(), SHUT_RDWR);
          entry.next = now + std::chrono::milliseconds(20);
        }
        wake_ = std::min(wake_, entry.next);
      }
      changed_.wait_until(lock, wake_);
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Entry> entries_;
  SteadyTime wake_{};
  std::jthread thread_;  // last: joined first
};

/// An exchange under a Watchdog's eyes.
class Watch {
 public:
  Watch(Watchdog& watchdog, SteadyTime deadline, UniqueFd socket)
      : watchdog_(watchdog), entry_(watchdog.add(deadline, std::move(socket))) {}

  Watch(Watch const&) = delete;
  Watch& operator=(Watch const&) = delete;

  ~Watch() {
    if (entry_) (void)end();  // by an exception: the socket's duplicate is closed
  }

  void set_socket(int socket) { watchdog_.set_socket(*entry_, socket); }

  /// As Watchdog::remove(). Call it once.
  [[nodiscard]] std::pair<UniqueFd, bool> end() {
    return watchdog_.remove(*std::exchange(entry_, std::nullopt));
  }

 private:
  Watchdog& watchdog_;
  std::optional<Watchdog::Handle> entry_;
};

}  // namespace erofs_oci::detail
