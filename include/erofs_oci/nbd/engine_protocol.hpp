// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a relay and an engine say to each other.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include <erofs_oci/core/fd.hpp>

namespace erofs_oci::nbd {

/// What an engine needs to serve: the ends of its relay's channel and arena.
struct RelayPort {
  UniqueFd channel{};  ///< SOCK_SEQPACKET; a packet is a whole number of messages
  UniqueFd arena{};    ///< to be mapped by SharedMemory::map()
};

/// From the relay: the engine puts the bytes at `place`, then answers. Both ends are of one program
/// on one machine, so a message is sent as it lies in memory.
struct EngineRequest {
  std::uint64_t id = 0;      ///< echoed
  std::uint64_t offset = 0;  ///< in the source, bytes
  std::uint64_t place = 0;   ///< in the arena, bytes
  std::uint32_t length = 0;  ///< bytes
  std::uint32_t padding = 0;
};

/// From the engine.
struct EngineAnswer {
  std::uint64_t id = 0;
  std::uint32_t error = 0;  ///< an Errno; 0: the bytes are there
  std::uint32_t padding = 0;
};

inline constexpr std::size_t most_in_packet = 64;  ///< messages

/// Some messages as they were received.
template <class T>
  requires std::is_trivially_copyable_v<T>
class Packet {
 public:
  /// Where to receive to. One byte more than fits, so that a longer packet shows.
  [[nodiscard]] std::span<std::byte> room() noexcept { return bytes_; }

  /// The number of messages in a packet of `size` bytes; 0 if that is not a whole number of them.
  [[nodiscard]] static constexpr std::size_t count(std::size_t size) noexcept {
    return size % sizeof(T) == 0 && size <= most_in_packet * sizeof(T) ? size / sizeof(T) : 0;
  }

  [[nodiscard]] T operator[](std::size_t i) const noexcept {
    T message;
    std::memcpy(&message, bytes_.data() + i * sizeof(T), sizeof(T));
    return message;
  }

 private:
  std::array<std::byte, most_in_packet * sizeof(T) + 1> bytes_{};
};

}  // namespace erofs_oci::nbd
