// SPDX-License-Identifier: Apache-2.0
/// @file
/// Work in a process of its own.
#pragma once

#include <functional>

#include "process.hpp"

namespace mount_oci {

/// Does what may wait for this very process: in another one. One thing at a time, for one thread's
/// poll(2) loop.
class Apart {
 public:
  /// Begins. What had begun before is left to itself.
  /// @param work  done in a copy of this process, which ends with it
  /// @param done  told by finish() what `work` has yielded; false, too, if it could not be done
  /// @error{an errno, as fork(2) and pidfd_open(2)}
  [[nodiscard]] Result<void> begin(std::function<bool()> const& work,
                                   std::function<void(bool)> done);

  /// Readable when finish() is to be called; -1 if nothing has begun.
  [[nodiscard]] int fd() const noexcept { return pidfd_.get(); }

  /// Takes the outcome, if it is there, and tells of it.
  void finish();

 private:
  UniqueFd pidfd_;
  std::function<void(bool)> done_;
};

}  // namespace mount_oci
