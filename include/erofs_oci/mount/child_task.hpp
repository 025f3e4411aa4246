// SPDX-License-Identifier: Apache-2.0
/// @file
/// ChildTask: work in a process of its own.
#pragma once

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <utility>

#include <sys/prctl.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/recovery/process.hpp>

namespace erofs_oci {

/// Does in a child process what may wait for the calling process itself, such as umount(2) of a
/// device that it serves. One task at a time, for one thread's poll(2) loop.
class ChildTask {
 public:
  /// Begins a task and returns at once. A task that was begun before goes on, and its outcome is
  /// not told.
  /// @param work  runs in a fork of this process, which is killed when this process ends, and has
  /// of
  ///              its descriptors only the three standard ones
  /// @param done  finish() calls it with what `work` has returned, or false if `work` was killed
  /// @error{an errno, as fork(2) and pidfd_open(2)}
  [[nodiscard]] Result<void> begin(std::function<bool()> const& work,
                                   std::function<void(bool)> done) {
    auto const parent = ::getpid();
    auto const child = ::fork();
    if (child < 0) return fail_errno(errno, "fork");
    if (child == 0) {
      // The parent's sockets and locks must end with it, even if `work` waits for their end.
      close_all_but({});
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      std::_Exit(::getppid() == parent && work() ? 0 : 1);
    }
    EROFS_OCI_TRY_ASSIGN(pidfd_, open_pidfd_or_end(child));
    done_ = std::move(done);
    return {};
  }

  /// Readable when finish() is to be called; -1 if no task runs.
  [[nodiscard]] int fd() const noexcept { return pidfd_.get(); }

  /// Calls `done` if the task has ended. Does not wait.
  void finish() {
    auto const exit = reap(pidfd_);
    if (exit && !*exit) return;
    pidfd_.reset();
    auto const done = std::exchange(done_, {});
    done(exit && (*exit)->status == 0);
  }

 private:
  UniqueFd pidfd_;
  std::function<void(bool)> done_;
};

}  // namespace erofs_oci
