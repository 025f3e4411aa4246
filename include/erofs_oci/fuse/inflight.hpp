// SPDX-License-Identifier: Apache-2.0
/// @file
/// FuseInflight: the requests that a server has taken and not answered yet.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include <fcntl.h>
#include <linux/fuse.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/shared_memory.hpp>

namespace erofs_oci {

/// Slots of shared memory into which a server reads requests, one for each of its threads. Since
/// the kernel writes there itself, a request that it has handed out is in a slot at every instant
/// until it is answered, and the server after a killed one finds it there.
///
/// What is found may have been answered just before the end. The kernel refuses a second answer, as
/// it never gives a request's number again, so that nothing comes of it.
///
/// @par Thread safety
/// As of any memory: one thread a slot.
class FuseInflight {
 public:
  /// Room for the longest request, as libfuse computes it: 256 pages and a header. A slot takes
  /// only as much memory as the longest one that was in it.
  static constexpr std::size_t slot_size = 256 * 4096 + 4096;

  /// Empty slots.
  /// @param slots  at least 1
  /// @error{an errno, as SharedMemory::make()}
  [[nodiscard]] static Result<FuseInflight> make(std::size_t slots) {
    auto memory = SharedMemory::make(slots * slot_size);
    if (!memory) return fail(std::move(memory).error(), "requests in flight");
    return FuseInflight(*std::move(memory));
  }

  /// The slots of another server.
  /// @error{Errc::protocol, they are none}
  /// @error{an errno, as SharedMemory::map()}
  [[nodiscard]] static Result<FuseInflight> map(UniqueFd fd) {
    auto memory = SharedMemory::map(std::move(fd));
    if (!memory) return fail(std::move(memory).error(), "requests in flight");
    if (memory->bytes().size() % slot_size != 0) return fail(Errc::protocol, "requests in flight");
    return FuseInflight(*std::move(memory));
  }

  [[nodiscard]] std::size_t slots() const noexcept { return memory_.bytes().size() / slot_size; }

  /// All of a slot.
  [[nodiscard]] std::span<std::byte> slot(std::size_t index) const noexcept {
    return memory_.bytes().subspan(index * slot_size, slot_size);
  }

  /// The request in a slot; empty if there is none.
  [[nodiscard]] std::span<std::byte> request(std::size_t index) const noexcept {
    auto const all = slot(index);
    fuse_in_header header{};
    std::memcpy(&header, all.data(), sizeof header);
    auto const whole = header.len >= sizeof header && header.len <= all.size();
    return all.first(whole ? header.len : 0);
  }

  /// It is answered.
  void clear(std::size_t index) const noexcept {
    std::memset(slot(index).data(), 0, sizeof(fuse_in_header));
  }

  /// Makes sure that the kernel need not wait for memory when it writes a usual request there: a
  /// signal that ends the process would make it drop the request.
  void touch(std::size_t index) const noexcept {
    constexpr std::size_t usual = 2 * 4096;
    auto* const bytes = static_cast<std::byte volatile*>(slot(index).data());
    for (std::size_t at = 0; at < usual; at += 4096) bytes[at] = bytes[at];
  }

  /// For the next server.
  /// @error{an errno, as fcntl(2)}
  [[nodiscard]] Result<UniqueFd> share() const {
    UniqueFd copy(::fcntl(memory_.fd(), F_DUPFD_CLOEXEC, 3));
    if (!copy) return fail_errno(errno, "dup");
    return copy;
  }

 private:
  explicit FuseInflight(SharedMemory memory) noexcept : memory_(std::move(memory)) {}

  SharedMemory memory_;
};

}  // namespace erofs_oci
