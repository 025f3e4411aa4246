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

namespace erofs_oci::nbd {

namespace detail {

/// Whole transfers on a socket until one point in time.
class DeadlineSocket {
 public:
  using Clock = std::chrono::steady_clock;

  DeadlineSocket(int fd, Clock::time_point deadline) noexcept : fd_(fd), deadline_(deadline) {}

  /// Fills `out`; false: the peer closed the connection first.
  [[nodiscard]] Result<bool> receive(std::span<std::byte> out) const {
    if (Clock::now() >= deadline_) return too_slow();  // even if it never made us wait
    while (!out.empty()) {
      auto const n = ::recv(fd_, out.data(), out.size(), MSG_DONTWAIT);
      if (n == 0 || (n < 0 && (errno == ECONNRESET || errno == EPIPE))) return false;
      if (n > 0) {
        out = out.subspan(static_cast<std::size_t>(n));
      } else if (auto const ok = wait(POLLIN, "receive"); !ok) {
        return fail(ok.error());
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
      } else if (auto const ok = wait(POLLOUT, "send"); !ok) {
        return fail(ok.error());
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
    auto const left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - Clock::now());
    pollfd entry{fd_, events, 0};
    auto const n =
        ::poll(&entry, 1, static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000)));
    if (n == 0 && Clock::now() >= deadline_) return too_slow();
    return {};
  }

  static tl::unexpected<Error> too_slow() {
    return fail(Errc::timed_out, "nbd handshake: the client is too slow");
  }

  int fd_;
  Clock::time_point deadline_;
};

}  // namespace detail

/// Talks to a client until it picks the export. Empty: it left, or `stop` was asked for.
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
  auto ok = socket.send(Handshake::greeting());
  std::array<std::byte, 4> flags{};
  if (ok && *ok) ok = socket.receive(flags);
  if (!ok) return fail(std::move(ok).error());
  if (!*ok) return Answer{};
  if (auto const known = handshake.client_flags(load_be<std::uint32_t>(flags)); !known) {
    return fail(known.error());
  }

  constexpr std::uint32_t drained = 1024 * 1024;  // more than this is not even skipped
  Bytes data;
  Bytes out;
  for (;;) {
    std::array<std::byte, OptionHeader::wire_size> raw{};
    ok = socket.receive(raw);
    if (!ok) return fail(std::move(ok).error());
    if (!*ok) return Answer{};
    auto const header = decode_option(raw);
    if (!header) return fail(header.error());
    auto const fits = header->length <= max_option_data;
    if (!fits && header->length > drained) {
      return fail(Errc::protocol, "nbd handshake: an option with " +
                                      std::to_string(header->length) + " bytes of data");
    }
    data.resize(fits ? header->length : 0);
    ok = fits ? socket.receive(data) : socket.skip(header->length);
    if (!ok) return fail(std::move(ok).error());
    if (!*ok) return Answer{};

    out.clear();
    auto const next = fits ? handshake.answer(header->option, data, out)
                           : handshake.answer_too_big(header->option, out);
    ok = socket.send(out);
    if (!ok) return fail(std::move(ok).error());
    if (!*ok || next == Handshake::Next::close) return Answer{};
    if (next == Handshake::Next::transmission) return Answer{handshake.negotiated()};
  }
}

}  // namespace erofs_oci::nbd
