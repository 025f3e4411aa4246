// SPDX-License-Identifier: Apache-2.0
/// @file
/// Keeper: what a serving process listens to besides the requests that it answers.
#pragma once

#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include <sys/types.h>

#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/nbd/wakeup.hpp>

#include "daemon.hpp"
#include "daemon_socket.hpp"
#include "link.hpp"
#include "process.hpp"

namespace mount_oci {

/// What is served, once the kernel has it.
struct Attached {
  Message news;  ///< for the process that mounts: `device`, or `mounted` by us already
  /// What it needs once it is mounted; yields a warning or nothing.
  std::function<std::string()> settle = [] { return std::string(); };
  /// Whether a file system is mounted from it, in whatever mount namespace, where the kernel does
  /// not end it with its last mount; else empty.
  std::function<bool()> in_use{};
};

/// Waits beside the server for what else can happen, and acts on it: the mounting process says that
/// it has mounted or failed, or dies; signals come; the last mount goes.
class Keeper {
 public:
  Keeper(Link link, Signals signals, erofs_oci::nbd::Wakeup ended, Life life, Log& log);
  Keeper(Keeper const&) = delete;
  Keeper& operator=(Keeper const&) = delete;
  ~Keeper() { finish(); }

  /// Waits no more. Must come before what `attached` needs is gone, and before failure() and
  /// report().
  void finish() noexcept;

  /// Tells of what is attached and begins to wait. Called by the server, once.
  void begin(Attached attached);

  /// When the server is to end.
  [[nodiscard]] std::stop_token stop_token() const noexcept { return stop_.get_token(); }

  /// Why it was not mounted, if it was not.
  [[nodiscard]] std::optional<Error> const& failure() const noexcept { return failure_; }

  [[nodiscard]] Signals const& signals() const noexcept { return signals_; }

  /// Closed at the other end once nobody waits for a mount any more.
  [[nodiscard]] int link_fd() const noexcept { return link_.fd(); }

  [[nodiscard]] Life life() const noexcept { return life_; }

  /// The other process is told why nothing will be mounted.
  void report(Error const& error) const { link_.send({Message::Kind::failed, {}, error, {}}); }

 private:
  void run();
  void on_message();
  void on_mounted(std::string target);
  void on_signal(int number);
  [[nodiscard]] bool is_still_there() const;

  Link link_;
  Signals signals_;
  erofs_oci::nbd::Wakeup ended_;
  Life life_;
  Log& log_;
  Attached attached_;
  std::string target_;           // empty: it means nothing here
  std::optional<dev_t> device_;  // of what is mounted there
  DaemonSocket socket_;          // that others wait on for our end
  bool mounted_ = false;         // or given up
  bool detached_ = false;        // by a first signal
  std::optional<Error> failure_;
  std::stop_source stop_;
  std::jthread thread_;
};

}  // namespace mount_oci
