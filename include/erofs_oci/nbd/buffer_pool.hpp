// SPDX-License-Identifier: Apache-2.0
/// @file
/// BufferPool: memory for replies, used again and never cleared.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

namespace erofs_oci::nbd {

/// Owned bytes without a defined content; empty by default.
class Buffer {
 public:
  /// Owns nothing.
  Buffer() noexcept = default;

  /// @throws std::bad_alloc
  explicit Buffer(std::size_t capacity)
      : bytes_(std::make_unique_for_overwrite<std::byte[]>(capacity)), capacity_(capacity) {}

  /// Bytes owned; 0 once it was moved from.
  [[nodiscard]] std::size_t capacity() const noexcept { return bytes_ ? capacity_ : 0; }

  /// The first `n` bytes; `n` <= capacity().
  [[nodiscard]] std::span<std::byte> first(std::size_t n) const noexcept {
    return {bytes_.get(), n};
  }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t capacity_ = 0;
};

/// Keeps idle buffers and gives out the one used last, since its pages are still in a cache.
///
/// @par Thread safety
/// All members, from any thread.
class BufferPool {
 public:
  /// @param kept  most bytes that idle buffers may hold; more is freed. Default: 32 MiB
  explicit BufferPool(std::size_t kept = 32 * 1024 * 1024) : kept_limit_(kept) {
    idle_.reserve(max_idle);  // so that give() cannot fail
  }

  /// A buffer of `size` bytes or more.
  /// @throws std::bad_alloc
  [[nodiscard]] Buffer take(std::size_t size) {
    {
      std::lock_guard const lock(mutex_);
      auto const found = std::find_if(idle_.rbegin(), idle_.rend(), [size](Buffer const& buffer) {
        return buffer.capacity() >= size;
      });
      if (found != idle_.rend()) {
        auto buffer = std::move(*found);
        idle_.erase(std::next(found).base());
        kept_ -= buffer.capacity();
        return buffer;
      }
    }
    constexpr std::size_t page = 4096;
    return Buffer((size + page - 1) / page * page);
  }

  /// Returns a buffer to the pool.
  void give(Buffer buffer) noexcept {
    if (buffer.capacity() == 0) return;
    std::lock_guard const lock(mutex_);
    if (idle_.size() == max_idle || buffer.capacity() > kept_limit_ - kept_) return;
    kept_ += buffer.capacity();
    idle_.push_back(std::move(buffer));
  }

 private:
  static constexpr std::size_t max_idle = 256;

  std::size_t kept_limit_;
  std::mutex mutex_;
  std::size_t kept_ = 0;
  std::vector<Buffer> idle_;
};

}  // namespace erofs_oci::nbd
