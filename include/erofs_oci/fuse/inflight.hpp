// SPDX-License-Identifier: Apache-2.0
/// @file
/// FuseInflight: the requests that a server has taken and not answered yet.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include <fcntl.h>
#include <linux/fuse.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/posix/shared_memory.hpp>

namespace erofs_oci {

/// Slots of shared memory into which a server, which is the worker, reads requests, one for each of
/// its threads. The kernel itself writes there, so a request is in a slot at every instant from
/// when the server takes it until it is answered, and the server after a killed one finds it there.
///
/// A request in a slot may have been answered just before the server's death. The kernel never uses
/// a request's number again, so it refuses a second answer, without harm.
///
/// A request that crashes every server would end one after the other: crashes() counts them.
///
/// @par Thread safety
/// As of any memory: one thread a slot.
class FuseInflight {
 public:
  /// Room for the longest request, as libfuse computes it: 256 pages and a header. A slot takes
  /// only as much memory as the longest one that was in it.
  static constexpr std::size_t slot_size = 256 * 4096 + 4096;
  static constexpr std::size_t most_slots = 1024;

  /// Empty slots.
  /// @param slots  1 to most_slots
  /// @error{an errno, as SharedMemory::make()}
  [[nodiscard]] static Result<FuseInflight> make(std::size_t slots) {
    EROFS_OCI_TRY_ASSIGN(auto memory, SharedMemory::make(counts_size + slots * slot_size),
                         "requests in flight");
    return FuseInflight(std::move(memory));
  }

  /// The slots of another server.
  /// @error{Errc::protocol, they are none}
  /// @error{an errno, as SharedMemory::map()}
  [[nodiscard]] static Result<FuseInflight> map(UniqueFd fd) {
    EROFS_OCI_TRY_ASSIGN(auto memory, SharedMemory::map(std::move(fd)), "requests in flight");
    auto const size = memory.bytes().size();
    auto const slots = size <= counts_size ? 0 : (size - counts_size) / slot_size;
    if (slots == 0 || slots > most_slots || size != counts_size + slots * slot_size) {
      return fail(Errc::protocol, "requests in flight");
    }
    return FuseInflight(std::move(memory));
  }

  [[nodiscard]] std::size_t slots() const noexcept {
    return (memory_.bytes().size() - counts_size) / slot_size;
  }

  /// All of a slot.
  [[nodiscard]] std::span<std::byte> slot(std::size_t index) const noexcept {
    return memory_.bytes().subspan(counts_size + index * slot_size, slot_size);
  }

  /// The request in a slot; empty if there is none.
  [[nodiscard]] std::span<std::byte> request(std::size_t index) const noexcept {
    auto const all = slot(index);
    fuse_in_header header{};
    std::memcpy(&header, all.data(), sizeof header);
    auto const whole = header.len >= sizeof header && header.len <= all.size();
    return all.first(whole ? header.len : 0);
  }

  /// Empties a slot after its request was answered.
  void clear(std::size_t index) const noexcept {
    std::memset(slot(index).data(), 0, sizeof(fuse_in_header));
    set_crashes(index, 0);
  }

  /// How many servers have crashed with the request in a slot.
  [[nodiscard]] std::uint32_t crashes(std::size_t index) const noexcept {
    std::uint32_t count = 0;
    std::memcpy(&count, count_of(index), sizeof count);
    return count;
  }

  /// Counts a crash for all requests in slots. To be called after a server has died by its own
  /// fault.
  void note_crash() const noexcept {
    for (std::size_t i = 0; i < slots(); ++i) {
      if (!request(i).empty()) set_crashes(i, crashes(i) + 1);
    }
  }

  /// Makes sure that the kernel need not wait for memory when it writes a usual request there: a
  /// signal that ends the process would make it drop the request.
  void touch(std::size_t index) const noexcept {
    constexpr std::size_t usual = 2 * 4096;
    auto* const bytes = static_cast<std::byte volatile*>(slot(index).data());
    for (std::size_t at = 0; at < usual; at += 4096) bytes[at] = bytes[at];
  }

  /// The descriptor, for the next server.
  /// @error{an errno, as fcntl(2)}
  [[nodiscard]] Result<UniqueFd> share() const { return duplicate(memory_.fd()); }

 private:
  // In front of the slots: how often each has been there when a server crashed.
  static constexpr std::size_t counts_size = most_slots * sizeof(std::uint32_t);

  explicit FuseInflight(SharedMemory memory) noexcept : memory_(std::move(memory)) {}

  [[nodiscard]] std::byte* count_of(std::size_t index) const noexcept {
    return memory_.bytes().data() + index * sizeof(std::uint32_t);
  }
  void set_crashes(std::size_t index, std::uint32_t count) const noexcept {
    std::memcpy(count_of(index), &count, sizeof count);
  }

  SharedMemory memory_;
};

}  // namespace erofs_oci
