// SPDX-License-Identifier: Apache-2.0
/// @file
/// UniqueFd and whole-buffer reads and writes: EINTR and short transfers are handled here, once.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// Owns a file descriptor and closes it.
class UniqueFd {
 public:
  /// Owns nothing.
  UniqueFd() noexcept = default;

  /// Owns `fd`, or nothing if it is negative.
  explicit UniqueFd(int fd) noexcept : fd_(fd) {}

  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

  UniqueFd& operator=(UniqueFd&& other) noexcept {
    UniqueFd taken(std::move(other));  // closes what this object had
    std::swap(fd_, taken.fd_);
    return *this;
  }

  ~UniqueFd() { reset(); }

  /// The descriptor, or -1.
  [[nodiscard]] int get() const noexcept { return fd_; }

  /// Whether one is owned.
  explicit operator bool() const noexcept { return fd_ >= 0; }

  /// Gives the descriptor away.
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }

  /// Closes it now. An error of close(2) is not reported: nothing written needs it here.
  void reset() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

/// Opens a path for reading, close-on-exec.
/// @error{an errno, as open(2)}
[[nodiscard]] inline Result<UniqueFd> open_read(std::string const& path, int more_flags = 0) {
  for (;;) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | more_flags));
    if (fd) return fd;
    if (errno != EINTR) return fail_errno(errno, path);
  }
}

/// pread(2) until `out` is full or the file ends; yields the bytes read.
/// @error{an errno, as pread(2)}
[[nodiscard]] inline Result<std::size_t> pread_full(int fd, std::uint64_t offset,
                                                    std::span<std::byte> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    auto const at = offset + done;
    if (at > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) break;
    auto const n = ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(at));
    if (n == 0) break;
    if (n > 0) done += static_cast<std::size_t>(n);
    if (n < 0 && errno != EINTR) {
      return fail_errno(errno, "read at offset " + std::to_string(at));
    }
  }
  return done;
}

/// read(2) until `out` is full or the stream ends; yields the bytes read.
/// @error{an errno, as read(2)}
[[nodiscard]] inline Result<std::size_t> read_full(int fd, std::span<std::byte> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    auto const n = ::read(fd, out.data() + done, out.size() - done);
    if (n == 0) break;
    if (n > 0) done += static_cast<std::size_t>(n);
    if (n < 0 && errno != EINTR) return fail_errno(errno, "read");
  }
  return done;
}

/// pwrite(2) until all of `bytes` is out.
/// @error{an errno, as pwrite(2); some may be written}
[[nodiscard]] inline Result<void> pwrite_full(int fd, std::uint64_t offset,
                                              std::span<std::byte const> bytes) {
  while (!bytes.empty()) {
    auto const n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "write");
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

/// write(2) until all of `bytes` is out.
/// @error{an errno, as write(2)}
[[nodiscard]] inline Result<void> write_full(int fd, std::span<std::byte const> bytes) {
  while (!bytes.empty()) {
    auto const n = ::write(fd, bytes.data(), bytes.size());
    if (n > 0) bytes = bytes.subspan(static_cast<std::size_t>(n));
    if (n < 0 && errno != EINTR) return fail_errno(errno, "write");
  }
  return {};
}

}  // namespace erofs_oci
