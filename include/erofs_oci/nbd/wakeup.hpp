// SPDX-License-Identifier: Apache-2.0
/// @file
/// Wakeup: ends a poll(2) of another thread.
#pragma once

#include <cerrno>
#include <cstdint>
#include <utility>

#include <sys/eventfd.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci::nbd {

/// An eventfd(2) that one thread polls for POLLIN and any thread makes readable.
///
/// @par Thread safety
/// notify() from any thread and from a stop_callback; clear() on the polling thread.
class Wakeup {
 public:
  /// @error{an errno, as eventfd(2)}
  [[nodiscard]] static Result<Wakeup> open() {
    UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!fd) return fail_errno(errno, "eventfd");
    return Wakeup(std::move(fd));
  }

  /// What to poll.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  /// Makes it readable until clear(). Can fail only when it is readable a 2^64 times already.
  void notify() const noexcept {
    std::uint64_t const one = 1;
    [[maybe_unused]] auto const n = ::write(fd_.get(), &one, sizeof one);
  }

  /// Makes it unreadable.
  void clear() const noexcept {
    std::uint64_t count = 0;
    [[maybe_unused]] auto const n = ::read(fd_.get(), &count, sizeof count);
  }

 private:
  explicit Wakeup(UniqueFd fd) noexcept : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace erofs_oci::nbd
