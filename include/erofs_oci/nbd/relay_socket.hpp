// SPDX-License-Identifier: Apache-2.0
/// @file
/// RelaySocket: the requests and replies of one of a relay's sockets.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include <poll.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/nbd/protocol.hpp>
#include <erofs_oci/nbd/reply.hpp>
#include <erofs_oci/nbd/reply_queue.hpp>
#include <erofs_oci/nbd/request_reader.hpp>

namespace erofs_oci::nbd {

/// A simple reply, whose data lie elsewhere.
struct RelayReply {
  std::array<std::byte, SimpleReply::wire_size> header{};
  std::span<std::byte const> data{};
  std::size_t place = 0;   ///< in the arena
  std::uint32_t held = 0;  ///< bytes taken from the arena; 0: none

  [[nodiscard]] ReplyParts parts() const noexcept { return {header, data}; }
};

/// One socket of the kernel's NBD client. A request is in flight from take() until its reply is
/// sent, and there is a limit to how many are. Never blocks; allocates only where it is made.
///
/// @par Thread safety
/// None.
class RelaySocket {
 public:
  using Fill = RequestReader::Fill;

  /// @param limit  most requests in flight, at least 1
  RelaySocket(UniqueFd fd, std::size_t limit) : fd_(std::move(fd)), limit_(limit) {
    replies_.reserve(limit);
  }

  [[nodiscard]] bool is_open() const noexcept { return bool(fd_); }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  /// Begins with the part of a request that another relay has received.
  /// @param unread  less than a request
  void begin_with(std::span<std::byte const> unread) noexcept { reader_.reset(unread); }

  /// @name Requests
  /// @{

  /// Whether to receive from the socket.
  /// @param paused  no request is to be begun
  [[nodiscard]] bool can_receive(bool paused) const noexcept {
    return is_open() && !reader_.has_next() && !(paused && reader_.is_between());
  }

  /// Receives what has arrived; for when next() yields nothing.
  /// @error{as RequestReader::fill()}
  [[nodiscard]] Result<Fill> receive() { return reader_.fill(fd_.get()); }

  /// The first request that is not taken; empty: there is none whole.
  /// @error{as RequestReader::next()}
  [[nodiscard]] Result<std::optional<Request>> next() { return reader_.next(); }

  /// Whether another request may be taken.
  [[nodiscard]] bool has_room() const noexcept { return in_flight_ < limit_; }

  /// Takes the request that next() yields; for when there is room.
  void take() noexcept {
    assert(has_room());
    ++in_flight_;
    reader_.take();
  }

  /// Whether every request that was taken is answered and its reply sent.
  [[nodiscard]] bool is_idle() const noexcept { return in_flight_ == 0 && reader_.is_between(); }
  /// @}

  /// @name Replies
  /// @{

  /// Answers a request that was taken. It is sent by send().
  void reply(RelayReply reply) noexcept { replies_.push(std::move(reply)); }

  /// Sends as much as the socket takes without blocking. An error of the socket shows in poll(2).
  /// @param on_sent  called with each reply that is sent whole
  template <class OnSent>
  void send(OnSent const& on_sent) {
    if (!is_open()) return;
    replies_.send(fd_.get(), [&](RelayReply const& reply) {
      --in_flight_;
      on_sent(reply);
    });
  }
  /// @}

  /// What to poll for.
  [[nodiscard]] short events(bool paused) const noexcept {
    return static_cast<short>((can_receive(paused) ? POLLIN : 0) |
                              (replies_.empty() ? 0 : POLLOUT));
  }

  /// Closes the socket and drops all requests.
  /// @param on_dropped  called with each reply that will not be sent
  template <class OnDropped>
  void close(OnDropped const& on_dropped) noexcept {
    fd_.reset();
    replies_.clear(on_dropped);
    reader_.reset();
    in_flight_ = 0;
  }

  /// The received part of a request that is not whole; for an idle socket.
  [[nodiscard]] std::span<std::byte const> unread() const noexcept { return reader_.unread(); }

  /// Gives the descriptor away.
  [[nodiscard]] UniqueFd release() noexcept { return std::move(fd_); }

 private:
  UniqueFd fd_;
  std::size_t limit_;
  RequestReader reader_{64 * Request::wire_size};
  ReplyQueue<RelayReply> replies_{};
  std::size_t in_flight_ = 0;
};

}  // namespace erofs_oci::nbd
