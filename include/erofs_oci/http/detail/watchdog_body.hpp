// SPDX-License-Identifier: Apache-2.0
/// @file
/// What http/watchdog.hpp only declares.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <list>
#include <mutex>
#include <utility>

#include <signal.h>
#include <sys/socket.h>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/http/watchdog.hpp>
#include <erofs_oci/posix/descriptor.hpp>

namespace erofs_oci::detail {

EROFS_OCI_BODY NoSigpipe::NoSigpipe() noexcept {
  sigemptyset(&pipe_);
  sigaddset(&pipe_, SIGPIPE);
  sigset_t pending;
  sigpending(&pending);
  was_pending_ = sigismember(&pending, SIGPIPE) == 1;
  pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
}

EROFS_OCI_BODY NoSigpipe::~NoSigpipe() {
  timespec const no_wait{};
  while (!was_pending_ && sigtimedwait(&pipe_, nullptr, &no_wait) < 0 && errno == EINTR) continue;
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

EROFS_OCI_BODY Watchdog::~Watchdog() {
  {
    std::lock_guard const lock(mutex_);  // or the thread might miss the notification
    thread_.request_stop();
  }
  changed_.notify_all();
}

EROFS_OCI_BODY Watch::Watch(Watchdog& watchdog, SteadyTime deadline, std::stop_token const& stop,
                            UniqueFd socket)
    : watchdog_(watchdog) {
  {
    std::lock_guard const lock(watchdog_.mutex_);
    watchdog_.entries_.push_front({deadline, false, std::move(socket)});
    entry_ = watchdog_.entries_.begin();
    // Deadlines mostly grow, so most exchanges need not wake the thread.
    if (deadline < watchdog_.wake_) watchdog_.changed_.notify_all();
  }
  if (stop.stop_possible()) at_stop_.emplace(stop, Hurry{*this});  // which may run at once
}

EROFS_OCI_BODY void Watch::hurry() noexcept {
  std::lock_guard const lock(watchdog_.mutex_);
  (*entry_)->next = {};
  watchdog_.changed_.notify_all();
}

EROFS_OCI_BODY void Watch::set_socket(int socket) {
  auto copy = duplicate(socket).value_or(UniqueFd());  // none: it cannot be shut down early
  std::lock_guard const lock(watchdog_.mutex_);
  (*entry_)->socket = std::move(copy);
}

EROFS_OCI_BODY std::pair<UniqueFd, bool> Watch::end() {
  at_stop_.reset();  // waits for hurry(), so without the lock
  std::lock_guard const lock(watchdog_.mutex_);
  auto const entry = *std::exchange(entry_, std::nullopt);
  auto out = std::pair(std::move(entry->socket), entry->fired);
  watchdog_.entries_.erase(entry);
  return out;
}

EROFS_OCI_BODY void Watchdog::run(std::stop_token const& stop) {
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

}  // namespace erofs_oci::detail
