// SPDX-License-Identifier: Apache-2.0
/// @file
/// EngineChannels: the sockets between a relay and its engines.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/nbd/engine_protocol.hpp>
#include <erofs_oci/nbd/protocol.hpp>
#include <erofs_oci/nbd/read_table.hpp>
#include <erofs_oci/posix/descriptor.hpp>

namespace erofs_oci::nbd {

/// The relay's ends of the channels. Never blocks.
///
/// @par Thread safety
/// None.
class EngineChannels {
 public:
  /// Makes a channel for one more engine and yields the engine's end.
  /// @param arena  the file of the shared memory; the engine gets a descriptor of its own
  /// @error{an errno, as socketpair(2) and fcntl(2)}
  [[nodiscard]] Result<std::pair<EngineId, RelayPort>> add(int arena) {
    EROFS_OCI_TRY_ASSIGN(auto ends, socket_pair(SOCK_SEQPACKET), "nbd relay");
    RelayPort port;
    port.channel = std::move(ends.second);
    EROFS_OCI_TRY_ASSIGN(port.arena, duplicate(arena), "nbd relay");
    auto const id = next_++;
    channels_.emplace(id, std::move(ends.first));
    return std::pair(id, std::move(port));
  }

  [[nodiscard]] bool has(EngineId id) const noexcept { return channels_.contains(id); }

  void remove(EngineId id) noexcept { channels_.erase(id); }

  /// Closes all channels. has() stays true for their engines.
  void close() noexcept {
    for (auto& [id, channel] : channels_) channel.reset();
  }

  /// Sends all or nothing; yields whether it did.
  [[nodiscard]] bool send(EngineId id, std::span<EngineRequest const> messages) const noexcept {
    auto const found = channels_.find(id);
    if (found == channels_.end() || !found->second) return false;
    ssize_t n = -1;
    do {
      n = ::send(found->second.get(), messages.data(), messages.size_bytes(),
                 MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n == static_cast<ssize_t>(messages.size_bytes());
  }

  /// Adds what to wait for.
  /// @param full  an engine that send() had no room for; 0: none
  void watch(std::vector<pollfd>& fds, EngineId full) const {
    for (auto const& [id, channel] : channels_) {
      short const events = channel && id == full ? POLLIN | POLLOUT : POLLIN;
      fds.push_back({channel.get(), events, 0});
    }
  }

  /// Receives the answers that have arrived. Closes a channel on which anything else arrives; its
  /// engine can still write to the arena.
  /// @param fds        what watch() added
  /// @param on_answer  (EngineId, EngineAnswer): whether that engine had such a request
  /// @param on_violation  called with the reason when a channel was closed
  template <class OnAnswer, class OnViolation>
  void receive(std::span<pollfd const> fds, OnAnswer const& on_answer,
               OnViolation const& on_violation) {
    std::size_t next = 0;
    for (auto& [id, channel] : channels_) {
      if (fds[next++].revents != 0) receive_from(id, channel, on_answer, on_violation);
    }
  }

 private:
  template <class OnAnswer, class OnViolation>
  static void receive_from(EngineId id, UniqueFd& channel, OnAnswer const& on_answer,
                           OnViolation const& on_violation) {
    Packet<EngineAnswer> packet;
    auto const close_with = [&](std::string_view why) {
      channel.reset();
      on_violation(why);
    };
    while (channel) {
      auto const n =
          ::recv(channel.get(), packet.room().data(), packet.room().size(), MSG_DONTWAIT);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
      if (n <= 0)
        return channel.reset();  // the supervisor, which reaps the process, calls remove()
      auto const count = packet.count(static_cast<std::size_t>(n));
      if (count == 0) close_with("a packet that is no answer");
      for (std::size_t i = 0; i < count && channel; ++i) {
        auto const good = is_known(packet[i].error) && on_answer(id, packet[i]);
        if (!good) close_with("an answer without a request");
      }
    }
  }

  [[nodiscard]] static bool is_known(std::uint32_t error) noexcept {
    using enum Errno;
    constexpr std::array known{none, perm, io, nomem, inval, nospc, overflow, notsup, shutdown};
    return std::ranges::find(known, Errno{error}) != known.end();
  }

  std::map<EngineId, UniqueFd> channels_{};  // empty: closed
  EngineId next_ = 1;
};

}  // namespace erofs_oci::nbd
