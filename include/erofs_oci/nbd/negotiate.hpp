// SPDX-License-Identifier: Apache-2.0
/// @file
/// negotiate(): the fixed newstyle handshake on a socket, within a deadline.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>

#include <poll.h>
#include <sys/socket.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/handshake.hpp>
#include <erofs_oci/posix/wait.hpp>

namespace erofs_oci::nbd {

namespace detail {

/// Whole transfers on a socket until one point in time.
class DeadlineSocket {
 public:
  using Clock = std::chrono::steady_clock;

  DeadlineSocket(int fd, Clock::time_point deadline) noexcept : fd_(fd), deadline_(deadline) {}

  /// Fills `out`; false: the peer closed the connection first.
  [[nodiscard]] Result<bool> receive(std::span<std::byte> out) const {
    if (Clock::now() >= deadline_) return too_slow();  // even if receiving never had to wait
    while (!out.empty()) {
      auto const n = ::recv(fd_, out.data(), out.size(), MSG_DONTWAIT);
      if (n == 0 || (n < 0 && (errno == ECONNRESET || errno == EPIPE))) return false;
      if (n > 0) {
        out = out.subspan(static_cast<std::size_t>(n));
      } else {
        EROFS_OCI_TRY(wait(POLLIN, "receive"));
      }
    }
    return true;
  }

  /// Receives and forgets `n` bytes.
  [[nodiscard]] Result<bool> skip(std::uint32_t n) const {
    std::array<std::byte, 4096> waste;
    while (n > 0) {
      auto const part = std::span(waste).first(std::min<std::size_t>(n, waste.size()));
      auto const ok = receive(part);
      if (!ok || !*ok) return ok;
      n -= static_cast<std::uint32_t>(part.size());
    }
    return true;
  }

  /// Sends all; false: the peer is gone.
  [[nodiscard]] Result<bool> send(std::span<std::byte const> bytes) const {
    while (!bytes.empty()) {
      auto const n = ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0 && (errno == ECONNRESET || errno == EPIPE)) return false;
      if (n >= 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(n));
      } else {
        EROFS_OCI_TRY(wait(POLLOUT, "send"));
      }
    }
    return true;
  }

 private:
  /// After a failed transfer: waits if it was only not possible yet.
  Result<void> wait(short events, char const* what) const {
    if (errno == EINTR) return {};
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
      return fail_errno(errno, std::string("nbd handshake: ") + what);
    }
    pollfd entry{fd_, events, 0};
    EROFS_OCI_TRY_ASSIGN(auto const ready, poll_until({&entry, 1}, deadline_), "nbd handshake");
    return ready ? Result<void>() : too_slow();
  }

  static tl::unexpected<Error> too_slow() {
    return fail(Errc::timed_out, "nbd handshake: the client is too slow");
  }

  int fd_;
  Clock::time_point deadline_;
};

}  // namespace detail

/// Negotiates with a client until it picks the export. Blocks up to `limit`. Empty: the client
/// left, or `stop` was requested.
/// @param limit  for the whole handshake
/// @error{Errc::timed_out, the client took longer than `limit`}
/// @error{Errc::protocol, the client broke the protocol}
[[nodiscard]] inline Result<std::optional<Negotiated>> negotiate(int fd, Export const& served,
                                                                 std::stop_token stop,
                                                                 std::chrono::milliseconds limit) {
  using Answer = std::optional<Negotiated>;
  std::stop_callback const cut(stop, [fd] { ::shutdown(fd, SHUT_RDWR); });
  detail::DeadlineSocket const socket(fd, std::chrono::steady_clock::now() + limit);
  Handshake handshake(served);
  EROFS_OCI_TRY_ASSIGN(auto alive, socket.send(Handshake::greeting()));
  if (!alive) return Answer{};
  std::array<std::byte, 4> flags{};
  EROFS_OCI_TRY_ASSIGN(alive, socket.receive(flags));
  if (!alive) return Answer{};
  EROFS_OCI_TRY(handshake.client_flags(load_be<std::uint32_t>(flags)));

  constexpr std::uint32_t drained = 1024 * 1024;  // more than this is not even skipped
  Bytes data;
  Bytes out;
  for (;;) {
    std::array<std::byte, OptionHeader::wire_size> raw{};
    EROFS_OCI_TRY_ASSIGN(alive, socket.receive(raw));
    if (!alive) return Answer{};
    EROFS_OCI_TRY_ASSIGN(auto const header, decode_option(raw));
    auto const fits = header.length <= max_option_data;
    if (!fits && header.length > drained) {
      return fail(Errc::protocol, "nbd handshake: an option with " + std::to_string(header.length) +
                                      " bytes of data");
    }
    data.resize(fits ? header.length : 0);
    EROFS_OCI_TRY_ASSIGN(alive, fits ? socket.receive(data) : socket.skip(header.length));
    if (!alive) return Answer{};

    out.clear();
    auto const next = fits ? handshake.answer(header.option, data, out)
                           : handshake.answer_too_big(header.option, out);
    EROFS_OCI_TRY_ASSIGN(alive, socket.send(out));
    if (!alive || next == Handshake::Next::close) return Answer{};
    if (next == Handshake::Next::transmission) return Answer{handshake.negotiated()};
  }
}

}  // namespace erofs_oci::nbd
