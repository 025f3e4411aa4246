// SPDX-License-Identifier: Apache-2.0
/// @file
/// MemoryKeeper: gives memory that an image does not need back to the machine.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <thread>

#include <erofs_oci/host/memory_pressure.hpp>
#include <erofs_oci/image/held_memory.hpp>

#include "process.hpp"

namespace mount_oci {

/// Has the allocator give large pieces back to the machine as soon as they are free, and keep the
/// rest together. For a process that reads an image, before it has threads.
void bound_heap() noexcept;

/// Gives all free pages of the allocator back to the machine, also in a process whose memory is
/// locked. From any thread.
void release_heap() noexcept;

/// Looks once a second whether an image's caches shall give memory back, and has them do it, on a
/// thread of its own, until the end of its life.
class MemoryKeeper {
 public:
  /// Opens what it needs to know of the machine: before the process is confined.
  explicit MemoryKeeper(Log const& log);

  MemoryKeeper(MemoryKeeper const&) = delete;
  MemoryKeeper& operator=(MemoryKeeper const&) = delete;

  /// @param held   what the caches hold
  /// @param reads  counts the reads that have ended; from any thread
  /// @param quiet  time without a read after which memory is given back; 0: only when the machine
  ///               is in need
  void begin(erofs_oci::HeldMemory held, std::function<std::uint64_t()> reads,
             std::chrono::seconds quiet);

 private:
  [[nodiscard]] std::optional<std::chrono::microseconds> waited() const;

  Log const& log_;
  std::optional<erofs_oci::MemoryPressure> pressure_;  // empty: the kernel does not tell
  std::jthread thread_;                                // last: it uses the rest
};

}  // namespace mount_oci
