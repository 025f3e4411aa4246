// SPDX-License-Identifier: Apache-2.0
/// @file
/// The present worker of a mount, and what is left of those before it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <sys/types.h>

#include <erofs_oci/fuse/choose_mount.hpp>
#include <erofs_oci/nbd/relay.hpp>
#include <erofs_oci/recovery/process.hpp>
#include <erofs_oci/recovery/record_fields.hpp>
#include <erofs_oci/recovery/supervisor.hpp>

#include "link.hpp"
#include "mount_report.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// A child that runs run_worker(). There is one at a time. When one has ended is for a Supervisor
/// to see, which also reaps it.
class WorkerProcess {
 public:
  /// None yet.
  /// @error{an errno, as signalfd(2)}
  [[nodiscard]] static Result<WorkerProcess> make();

  /// Forks one. The one before, if there was one, has been reaped.
  /// @param record  of what was served before; empty: nothing
  /// @error{an errno, as fork(2) and socketpair(2)}
  [[nodiscard]] Result<erofs_oci::SupervisedDaemon> start(
      Options const& options, std::optional<erofs_oci::Record> const& record,
      erofs_oci::MountWay way, std::string const& target, Log& log);

  /// @name The link to it
  /// @{

  /// To poll for POLLIN; -1 once it is closed.
  [[nodiscard]] int fd() const noexcept { return link_ ? link_->fd() : -1; }

  /// Takes a message; empty if the worker has closed its end, as does fd() from then on.
  [[nodiscard]] std::optional<Message> receive();

  /// Nothing happens if the link is closed.
  void send(Message const& message) const noexcept {
    if (link_) link_->send(message);
  }
  /// @}

  /// @name The process
  /// @{

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }

  /// To poll for POLLIN: a child has been stopped, or has ended.
  [[nodiscard]] int child_fd() const noexcept { return children_->fd(); }

  /// If it was stopped, lets it go on: it would keep the kernel waiting.
  void let_go_on(Log const& log) const;

  /// Ends it at once; for one that is not reaped yet, whose number is still its own.
  void kill() const noexcept;

  /// Asks it to end, waits, and ends it if it does not. It may have been reaped already.
  void stop() const;
  /// @}

  /// @name How it ended
  /// @{

  /// It is killed because it hangs.
  void note_hang() noexcept { hung_ = true; }
  void note_end(erofs_oci::ProcessExit const& exit) noexcept;

  /// Whether the last one may have ended by something that it was asked.
  [[nodiscard]] erofs_oci::EngineEnd end() const noexcept { return end_; }
  /// @}

  /// @name What they have counted
  /// @{

  /// What the present one has told.
  void note_counts(WorkerCounts const& counts) noexcept { counts_ = counts; }

  /// All together; what is cached, of the present one.
  [[nodiscard]] WorkerCounts counts() const noexcept;

  /// How many came after the first one.
  [[nodiscard]] unsigned restarts() const noexcept { return starts_ == 0 ? 0 : starts_ - 1; }
  /// @}

 private:
  explicit WorkerProcess(Signals children)
      : children_(std::make_unique<Signals>(std::move(children))) {}

  std::unique_ptr<Signals> children_;  // SIGCHLD
  std::optional<Link> link_;
  pid_t pid_ = -1;
  unsigned starts_ = 0;
  bool hung_ = false;
  erofs_oci::EngineEnd end_ = erofs_oci::EngineEnd::killed;
  WorkerCounts counts_;   // of the present one
  WorkerCounts earlier_;  // of those before
};

}  // namespace mount_oci
