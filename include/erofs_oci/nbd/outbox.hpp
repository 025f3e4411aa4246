// SPDX-License-Identifier: Apache-2.0
/// @file
/// Outbox: the replies of one socket, sent whole and one after the other, by nobody who waits.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <utility>

#include <sys/socket.h>
#include <sys/uio.h>

#include <erofs_oci/nbd/buffer_pool.hpp>
#include <erofs_oci/nbd/reply.hpp>
#include <erofs_oci/nbd/wakeup.hpp>

namespace erofs_oci::nbd {

/// Bounds the requests that one socket may have between arrival and the last byte of the reply.
///
/// @par Thread safety
/// enter() on one thread, leave() on any.
class Window {
 public:
  /// @param requests  most requests, at least 1
  /// @param bytes     most bytes of replies, but one reply always fits
  Window(std::size_t requests, std::size_t bytes) noexcept : requests_(requests), bytes_(bytes) {}

  /// Takes room for a reply of `bytes`, if there is any.
  [[nodiscard]] bool enter(std::size_t bytes) noexcept {
    if (held_requests_ >= std::max<std::size_t>(requests_, 1)) return false;
    if (auto const held = held_bytes_.load(); held != 0 && held + bytes > bytes_) return false;
    ++held_requests_;
    held_bytes_ += bytes;
    return true;
  }

  /// Gives it back.
  void leave(std::size_t bytes) noexcept {
    held_bytes_ -= bytes;
    --held_requests_;
  }

  /// Whether every request has left.
  [[nodiscard]] bool empty() const noexcept { return held_requests_ == 0; }

 private:
  std::size_t requests_;
  std::size_t bytes_;
  std::atomic<std::size_t> held_requests_ = 0;
  std::atomic<std::size_t> held_bytes_ = 0;
};

/// Sends replies without ever waiting for the peer: what the socket does not take at once is kept
/// for flush(), which the socket's own thread calls. So a peer that stops reading costs the
/// workers, which other sockets need, nothing; the Window bounds what is kept.
///
/// @par Thread safety
/// send(), broken(), break_off() from any thread; the rest on the socket's thread.
class Outbox {
 public:
  /// Borrows all four. `wakeup` is notified when there is something to flush, when the socket
  /// broke, and when a reply left the Window after wait_for_room().
  Outbox(int socket, BufferPool& pool, Window& window, Wakeup const& wakeup) noexcept
      : socket_(socket), pool_(pool), window_(window), wakeup_(wakeup) {}

  Outbox(Outbox const&) = delete;
  Outbox& operator=(Outbox const&) = delete;
  ~Outbox() = default;

  /// Sends or keeps `reply`, or drops it once the socket is broken.
  void send(Reply reply) noexcept {
    std::lock_guard const lock(mutex_);
    if (broken_) return drop(reply);
    try {
      queue_.push_back(std::move(reply));
    } catch (std::bad_alloc const&) {  // nothing was moved; a client without an answer must go
      drop(reply);
      return give_up();
    }
    if (queue_.size() > 1) return;  // the socket's thread knows already
    push();
    if (queue_.empty()) return;
    stalled_since_ = Clock::now();
    wakeup_.notify();
  }

  /// Leaves the Window without a reply: the peer is gone.
  void abandon(std::size_t charge) noexcept {
    window_.leave(charge);
    if (waiting_.exchange(false)) wakeup_.notify();
  }

  /// Sends what was kept, as far as the socket takes it.
  void flush() {
    std::lock_guard const lock(mutex_);
    auto const before = sent_total_;
    push();
    if (sent_total_ != before) stalled_since_ = Clock::now();
  }

  /// Since when the peer has taken nothing although there is something; empty: there is nothing.
  [[nodiscard]] std::optional<std::chrono::steady_clock::time_point> stalled_since() {
    std::lock_guard const lock(mutex_);
    if (queue_.empty()) return std::nullopt;
    return stalled_since_;
  }

  /// Whether no reply will ever reach the peer.
  [[nodiscard]] bool broken() const noexcept { return broken_; }

  /// Gives the socket up: drops what was kept and shuts the connection down.
  void break_off() noexcept {
    std::lock_guard const lock(mutex_);
    give_up();
  }

  /// From now until the next reply leaves, that is worth a wakeup. Look at the Window again after
  /// this and before waiting.
  void wait_for_room() noexcept { waiting_ = true; }

 private:
  using Clock = std::chrono::steady_clock;

  /// As much of the queue as the socket takes now, many replies a system call.
  void push() {
    while (!queue_.empty()) {
      std::array<iovec, 2 * max_batch> parts;
      msghdr message{};
      message.msg_iov = parts.data();
      message.msg_iovlen = gather(parts);
      auto const n = ::sendmsg(socket_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0) {
        if (errno == EINTR) continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) give_up();
        return;
      }
      retire(static_cast<std::size_t>(n));
    }
  }

  [[nodiscard]] std::size_t gather(std::span<iovec> parts) const noexcept {
    std::size_t count = 0;
    auto skip = front_sent_;
    auto const add = [&](std::byte const* data, std::size_t size) {
      auto const skipped = std::min(skip, size);
      skip -= skipped;
      if (size > skipped) {
        parts[count++] = {const_cast<std::byte*>(data) + skipped, size - skipped};
      }
    };
    for (std::size_t i = 0; i < std::min(queue_.size(), max_batch); ++i) {
      add(queue_[i].head.data(), queue_[i].head_size);
      add(queue_[i].body.first(queue_[i].body_size).data(), queue_[i].body_size);
    }
    return count;
  }

  void retire(std::size_t n) noexcept {
    sent_total_ += n;
    front_sent_ += n;
    while (!queue_.empty()) {
      auto& front = queue_.front();
      auto const size = front.head_size + front.body_size;
      if (front_sent_ < size) return;
      front_sent_ -= size;
      drop(front);
      queue_.pop_front();
    }
  }

  void drop(Reply& reply) noexcept {
    pool_.give(std::move(reply.body));
    abandon(reply.charge);
  }

  void give_up() noexcept {
    if (broken_.exchange(true)) return;
    for (auto& reply : queue_) drop(reply);
    queue_.clear();
    ::shutdown(socket_, SHUT_RDWR);
    wakeup_.notify();
  }

  static constexpr std::size_t max_batch = 16;

  int socket_;
  BufferPool& pool_;
  Window& window_;
  Wakeup const& wakeup_;
  std::atomic<bool> waiting_ = false;
  std::atomic<bool> broken_ = false;
  std::mutex mutex_;
  std::deque<Reply> queue_;
  std::size_t front_sent_ = 0;  // bytes of queue_.front()
  std::uint64_t sent_total_ = 0;
  Clock::time_point stalled_since_{};
};

}  // namespace erofs_oci::nbd
