// SPDX-License-Identifier: Apache-2.0
/// @file
/// RequestReader: what a client sends, cut into requests.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <sys/socket.h>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/nbd/protocol.hpp>

namespace erofs_oci::nbd {

/// Receives requests without blocking. The payload of a WRITE is dropped before the WRITE comes
/// out, so that it is answered like a request that has none.
///
/// @par Thread safety
/// None: one thread at a time.
class RequestReader {
 public:
  /// The longest payload that is dropped, in bytes. A longer one is a protocol error.
  static constexpr std::uint32_t longest_write = max_payload + 1024 * 1024;

  enum class Fill : std::uint8_t {
    some,     ///< bytes were received
    nothing,  ///< none are there now
    closed,   ///< none will come: the client has closed the connection
  };

  /// @param size  of the buffer in bytes, at least 2 * Request::wire_size
  explicit RequestReader(std::size_t size)
      : size_(size), input_(std::make_unique_for_overwrite<std::byte[]>(size)) {}

  /// Receives what has arrived; for when next() yields nothing.
  /// @error{an errno, as recv(2)}
  [[nodiscard]] Result<Fill> fill(int socket) {
    std::copy(input_.get() + begin_, input_.get() + end_, input_.get());
    end_ -= begin_;
    begin_ = 0;
    for (;;) {
      auto const n = ::recv(socket, input_.get() + end_, size_ - end_, MSG_DONTWAIT);
      if (n > 0) {
        end_ += static_cast<std::size_t>(n);
        return Fill::some;
      }
      if (n == 0 || errno == ECONNRESET || errno == EPIPE) return Fill::closed;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return Fill::nothing;
      if (errno != EINTR) return fail_errno(errno, "nbd: receive");
    }
  }

  /// The first request that has arrived whole, the same one until take(); empty: fill() first.
  /// @error{Errc::protocol, the client broke the protocol; the connection is of no more use}
  [[nodiscard]] Result<std::optional<Request>> next() {
    if (!next_) {
      if (end_ - begin_ < Request::wire_size) return std::nullopt;
      EROFS_OCI_TRY_ASSIGN(auto const request,
                           decode_request(unread().first<Request::wire_size>()));
      auto const payload = request.is(Command::write) ? request.length : 0;
      if (payload > longest_write) {
        return fail(Errc::protocol, "nbd: a WRITE of " + std::to_string(payload) + " bytes");
      }
      begin_ += Request::wire_size;
      next_ = request;
      payload_left_ = payload;
    }
    auto const dropped = std::min<std::size_t>(payload_left_, end_ - begin_);
    begin_ += dropped;
    payload_left_ -= static_cast<std::uint32_t>(dropped);
    if (payload_left_ != 0) return std::nullopt;
    return next_;
  }

  /// Goes on to the request after next().
  void take() noexcept { next_.reset(); }

  /// Whether next() yields a request, or an error, without another fill().
  [[nodiscard]] bool has_next() const noexcept {
    return next_ ? payload_left_ == 0 : end_ - begin_ >= Request::wire_size;
  }

  /// Whether nothing has arrived of the next request but, at most, a part of its header.
  [[nodiscard]] bool is_between() const noexcept {
    return !next_ && end_ - begin_ < Request::wire_size;
  }

  /// What has arrived behind next().
  [[nodiscard]] std::span<std::byte const> unread() const noexcept {
    return {input_.get() + begin_, end_ - begin_};
  }

  /// Starts with the bytes that another reader has left unread.
  /// @param unread  at most as long as the buffer
  void reset(std::span<std::byte const> unread = {}) noexcept {
    next_.reset();
    payload_left_ = 0;
    begin_ = 0;
    end_ = unread.size();
    std::ranges::copy(unread, input_.get());
  }

 private:
  std::size_t size_;
  std::unique_ptr<std::byte[]> input_;
  std::size_t begin_ = 0;  // input_[begin_, end_) is unread
  std::size_t end_ = 0;
  std::optional<Request> next_{};
  std::uint32_t payload_left_ = 0;  // of next_, still to be dropped
};

}  // namespace erofs_oci::nbd
