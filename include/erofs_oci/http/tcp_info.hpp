// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the kernel knows of a connection that cpp-httplib has given up.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace erofs_oci::detail {

/// The start of the kernel's struct tcp_info. Its header, <linux/tcp.h>, cannot be included beside
/// <netinet/tcp.h>, whose struct ends before `bytes_received`.
struct TcpInfo {
  std::uint8_t state = 0;
  std::array<std::uint8_t, 7> more_states{};
  std::array<std::uint32_t, 11> counts{};
  std::uint32_t last_data_received = 0;  ///< milliseconds since then
  std::array<std::uint32_t, 12> more_counts{};
  std::array<std::uint64_t, 3> rates{};
  std::uint64_t bytes_received = 0;  ///< since the connection was made

  /// All zeros if `socket` is none.
  [[nodiscard]] static TcpInfo of(int socket) noexcept {
    TcpInfo info;
    socklen_t size = sizeof info;
    if (::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return {};
    return info;
  }

  /// Whether the connection is still there, or was ended by this side before the other.
  [[nodiscard]] bool was_ended_here() const noexcept {
    return state != 0 && state != TCP_CLOSE && state != TCP_CLOSE_WAIT && state != TCP_LAST_ACK;
  }
};

static_assert(offsetof(TcpInfo, last_data_received) == offsetof(tcp_info, tcpi_last_data_recv));
static_assert(offsetof(TcpInfo, bytes_received) == 128 && sizeof(TcpInfo) == 136);

/// Whether unread bytes have arrived on `socket`: its reader stopped before the end.
[[nodiscard]] inline bool has_unread_bytes(int socket) noexcept {
  char byte = 0;
  return ::recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

}  // namespace erofs_oci::detail
