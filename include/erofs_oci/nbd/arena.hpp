// SPDX-License-Identifier: Apache-2.0
/// @file
/// Arena: memory that a relay and its engines share, and ArenaRanges, which says what of it is
/// free.
#pragma once

#include <cassert>
#include <cerrno>
#include <cstddef>
#include <iterator>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci::nbd {

/// Shared memory of a fixed size, mapped for reading and writing.
///
/// @par Thread safety
/// None of its own: who writes to which part is agreed on elsewhere.
class Arena {
 public:
  /// New memory, all zeros, that no process can make smaller: a mapped page can never go.
  /// @param size  bytes, > 0
  /// @error{an errno, as memfd_create(2) and mmap(2)}
  [[nodiscard]] static Result<Arena> make(std::size_t size) {
    UniqueFd fd(::memfd_create("erofs_oci", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!fd) return fail_errno(errno, "arena");
    if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0 ||
        ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
      return fail_errno(errno, "arena");
    }
    return map(std::move(fd));
  }

  /// The memory of another process's arena.
  /// @error{Errc::protocol, it is no arena\, or could become smaller}
  /// @error{an errno, as fstat(2) and mmap(2)}
  [[nodiscard]] static Result<Arena> map(UniqueFd fd) {
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "arena");
    auto const seals = ::fcntl(fd.get(), F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || status.st_size <= 0) {
      return fail(Errc::protocol, "arena: not sealed memory");
    }
    auto const size = static_cast<std::size_t>(status.st_size);
    auto* const start = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (start == MAP_FAILED) return fail_errno(errno, "arena");
    return Arena(std::move(fd), {static_cast<std::byte*>(start), size});
  }

  Arena(Arena&& other) noexcept
      : fd_(std::move(other.fd_)), bytes_(std::exchange(other.bytes_, {})) {}
  Arena& operator=(Arena&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Arena() {
    if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
  }

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }

  /// For another process to map.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  Arena(UniqueFd fd, std::span<std::byte> bytes) noexcept : fd_(std::move(fd)), bytes_(bytes) {}

  UniqueFd fd_;
  std::span<std::byte> bytes_;
};

/// Hands out ranges of an arena, the first that fits.
///
/// @par Thread safety
/// None.
class ArenaRanges {
 public:
  static constexpr std::size_t granule = 4096;  ///< bytes; every range is rounded up to it

  /// @param size  of the arena in bytes, a multiple of `granule`
  explicit ArenaRanges(std::size_t size) : size_(size), free_bytes_(size) {
    assert(size % granule == 0);
    if (size != 0) free_.emplace(0, size);
  }

  /// The start of a range of at least `length` bytes; empty if none is free.
  [[nodiscard]] std::optional<std::size_t> take(std::size_t length) {
    auto const wanted = rounded(length);
    if (!wanted) return std::nullopt;
    for (auto range = free_.begin(); range != free_.end(); ++range) {
      if (range->second < *wanted) continue;
      auto const [start, room] = *range;
      free_.erase(range);
      if (room > *wanted) free_.emplace(start + *wanted, room - *wanted);
      free_bytes_ -= *wanted;
      return start;
    }
    return std::nullopt;
  }

  /// Gives back what take() handed out for that length.
  void give_back(std::size_t start, std::size_t length) {
    auto size = rounded(length).value_or(0);
    assert(size != 0 && start + size <= size_);
    free_bytes_ += size;
    auto next = free_.lower_bound(start);
    if (next != free_.begin()) {
      auto const before = std::prev(next);
      assert(before->first + before->second <= start);
      if (before->first + before->second == start) {
        start = before->first;
        size += before->second;
        free_.erase(before);
      }
    }
    assert(next == free_.end() || start + size <= next->first);
    if (next != free_.end() && start + size == next->first) {
      size += next->second;
      free_.erase(next);
    }
    free_.emplace(start, size);
  }

  [[nodiscard]] std::size_t free_bytes() const noexcept { return free_bytes_; }

 private:
  [[nodiscard]] std::optional<std::size_t> rounded(std::size_t length) const noexcept {
    if (length == 0) return granule;
    if (length > size_) return std::nullopt;
    return (length + granule - 1) / granule * granule;
  }

  std::size_t size_;
  std::size_t free_bytes_;
  std::map<std::size_t, std::size_t> free_{};  // start -> length; no two of them touch
};

}  // namespace erofs_oci::nbd
