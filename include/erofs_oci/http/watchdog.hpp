// SPDX-License-Identifier: Apache-2.0
/// @file
/// Bounds the duration of an exchange by a watchdog over its socket, and blocks SIGPIPE.
#pragma once

#include <chrono>
#include <condition_variable>
#include <ctime>
#include <list>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>

#include <signal.h>
#include <sys/socket.h>

#include <erofs_oci/core/fd.hpp>

namespace erofs_oci::detail {

using SteadyTime = std::chrono::steady_clock::time_point;

/// Keeps SIGPIPE from this thread while it lives: OpenSSL writes to sockets without MSG_NOSIGNAL,
/// and how a process treats the signal is not ours to change.
class NoSigpipe {
 public:
  NoSigpipe() noexcept;

  NoSigpipe(NoSigpipe const&) = delete;
  NoSigpipe& operator=(NoSigpipe const&) = delete;

  ~NoSigpipe();

 private:
  sigset_t pipe_{};
  sigset_t before_{};
  bool was_pending_ = false;
};

/// Shuts the sockets of its Watches down when their deadline has passed, which cpp-httplib does not
/// do, and repeats that until the exchange has returned.
class Watchdog {
 public:
  Watchdog() : thread_([this](std::stop_token stop) { run(stop); }) {}

  Watchdog(Watchdog const&) = delete;
  Watchdog& operator=(Watchdog const&) = delete;

  ~Watchdog();

 private:
  friend class Watch;

  /// One exchange that is watched.
  struct Entry {
    SteadyTime next;
    bool fired = false;
    UniqueFd socket;  // a duplicate: the number cannot have become somebody else's
  };

  void run(std::stop_token const& stop);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Entry> entries_;
  SteadyTime wake_{};
  std::jthread thread_;  // last: joined first
};

/// An exchange under a Watchdog's eyes. Its time is over, too, when a stop is requested.
class Watch {
 public:
  /// Begins, at first without a socket, or with the one that the exchange will use.
  Watch(Watchdog& watchdog, SteadyTime deadline, std::stop_token const& stop, UniqueFd socket);

  Watch(Watch const&) = delete;
  Watch& operator=(Watch const&) = delete;

  ~Watch() {
    if (entry_) (void)end();  // by an exception: the socket's duplicate is closed
  }

  /// The exchange has a new connection.
  void set_socket(int socket);

  /// The exchange has returned. Call it once.
  /// @return the duplicate of its socket, for the next exchange, and whether time was over
  [[nodiscard]] std::pair<UniqueFd, bool> end();

 private:
  struct Hurry {
    Watch& watch;
    void operator()() const noexcept { watch.hurry(); }
  };

  /// Its time is over.
  void hurry() noexcept;

  Watchdog& watchdog_;
  std::optional<std::list<Watchdog::Entry>::iterator> entry_;
  std::optional<std::stop_callback<Hurry>> at_stop_;  // while there is an entry
};

}  // namespace erofs_oci::detail

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/http/detail/watchdog_body.hpp>
#endif
