// SPDX-License-Identifier: Apache-2.0
/// @file
/// SharedMemory: memory that several processes map; it lives as long as one of them.
#pragma once

#include <cerrno>
#include <cstddef>
#include <span>
#include <utility>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// Shared memory of a fixed size, mapped for reading and writing.
///
/// @par Thread safety
/// None of its own: the users must agree on who writes where.
class SharedMemory {
 public:
  /// New memory, all zeros, that no process can make smaller, so that no mapped page can vanish.
  /// @param size  bytes, > 0
  /// @error{an errno, as memfd_create(2) and mmap(2)}
  [[nodiscard]] static Result<SharedMemory> make(std::size_t size) {
    UniqueFd fd(::memfd_create("erofs_oci", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!fd) return fail_errno(errno, "shared memory");
    if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0 ||
        ::fcntl(fd.get(), F_ADD_SEALS, seals) != 0) {
      return fail_errno(errno, "shared memory");
    }
    return map(std::move(fd));
  }

  /// Memory that another process has made by make(). It may not be of huge pages: those may be
  /// missing, and touching one would end this process.
  /// @error{Errc::protocol, it is something else\, or could become smaller}
  /// @error{an errno, as fstat(2) and mmap(2)}
  [[nodiscard]] static Result<SharedMemory> map(UniqueFd fd) {
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "shared memory");
    struct statfs system{};
    if (::fstatfs(fd.get(), &system) != 0) return fail_errno(errno, "shared memory");
    if (system.f_type != TMPFS_MAGIC || ::fcntl(fd.get(), F_GET_SEALS) != seals ||
        status.st_size <= 0) {
      return fail(Errc::protocol, "shared memory: not sealed memory");
    }
    auto const size = static_cast<std::size_t>(status.st_size);
    auto* const start = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (start == MAP_FAILED) return fail_errno(errno, "shared memory");
    return SharedMemory(std::move(fd), {static_cast<std::byte*>(start), size});
  }

  SharedMemory(SharedMemory&& other) noexcept
      : fd_(std::move(other.fd_)), bytes_(std::exchange(other.bytes_, {})) {}
  SharedMemory& operator=(SharedMemory&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~SharedMemory() {
    if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
  }

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }

  /// The descriptor, for another process to map.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  static constexpr int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

  SharedMemory(UniqueFd fd, std::span<std::byte> bytes) noexcept
      : fd_(std::move(fd)), bytes_(bytes) {}

  UniqueFd fd_;
  std::span<std::byte> bytes_;
};

}  // namespace erofs_oci
