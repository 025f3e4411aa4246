// SPDX-License-Identifier: Apache-2.0
/// @file
/// ReplyQueue: the replies of one socket that are not sent yet.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <sys/uio.h>

namespace erofs_oci::nbd {

/// The bytes of a reply, in two pieces.
using ReplyParts = std::array<std::span<std::byte const>, 2>;

/// Something that is sent whole. It may not throw when it is moved.
template <class R>
concept QueuedReply = std::is_nothrow_move_constructible_v<R> &&
                      std::is_nothrow_move_assignable_v<R> && requires(R const& reply) {
                        { reply.parts() } noexcept -> std::convertible_to<ReplyParts>;
                      };

/// Sends replies one after the other and each of them whole, as far as the socket takes them.
///
/// @par Thread safety
/// None.
template <QueuedReply Item>
class ReplyQueue {
 public:
  /// Allocates for `count` replies: while fewer are queued, push() does not allocate.
  void reserve(std::size_t count) { items_.reserve(count); }

  [[nodiscard]] bool empty() const noexcept { return first_ == items_.size(); }
  [[nodiscard]] std::size_t size() const noexcept { return items_.size() - first_; }

  /// Bytes that the socket has taken so far.
  [[nodiscard]] std::uint64_t sent() const noexcept { return sent_; }

  /// Adds one at the end; leaves it as it is if there is no memory.
  void push(Item&& item) {
    if (items_.size() == items_.capacity() && first_ != 0) {
      items_.erase(items_.begin(), items_.begin() + static_cast<std::ptrdiff_t>(first_));
      first_ = 0;
    }
    items_.push_back(std::move(item));
  }

  /// Sends without blocking, many replies a system call.
  /// @param on_sent  called with each item that is sent whole, before it is removed
  /// @return whether the socket may take more later; false: it is broken
  template <std::invocable<Item&> OnSent>
  bool send(int socket, OnSent const& on_sent) {
    while (!empty()) {
      std::array<iovec, 2 * max_batch> parts;
      msghdr message{};
      message.msg_iov = parts.data();
      message.msg_iovlen = gather(parts);
      auto const n = ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
      retire(static_cast<std::size_t>(n), on_sent);
    }
    return true;
  }

  /// Drops all.
  /// @param on_dropped  called with each item before it is removed
  template <std::invocable<Item&> OnDropped>
  void clear(OnDropped const& on_dropped) noexcept {
    for (; !empty(); ++first_) on_dropped(items_[first_]);
    front_sent_ = 0;
    rewind();
  }

 private:
  static constexpr std::size_t max_batch = 16;

  [[nodiscard]] std::size_t gather(std::span<iovec> out) const noexcept {
    std::size_t count = 0;
    auto skip = front_sent_;
    for (std::size_t i = 0; i < std::min(size(), max_batch); ++i) {
      for (std::span<std::byte const> const part : items_[first_ + i].parts()) {
        auto const rest = part.subspan(std::min(skip, part.size()));
        skip -= part.size() - rest.size();
        if (!rest.empty()) out[count++] = {const_cast<std::byte*>(rest.data()), rest.size()};
      }
    }
    return count;
  }

  template <class OnSent>
  void retire(std::size_t n, OnSent const& on_sent) {
    sent_ += n;
    front_sent_ += n;
    for (; !empty(); ++first_) {
      auto& front = items_[first_];
      auto const parts = front.parts();
      auto const size = parts[0].size() + parts[1].size();
      if (front_sent_ < size) return;
      front_sent_ -= size;
      on_sent(front);
    }
    rewind();
  }

  void rewind() noexcept {
    items_.clear();
    first_ = 0;
  }

  std::vector<Item> items_{};  // those before first_ are sent
  std::size_t first_ = 0;
  std::size_t front_sent_ = 0;  // bytes of the first one
  std::uint64_t sent_ = 0;
};

}  // namespace erofs_oci::nbd
