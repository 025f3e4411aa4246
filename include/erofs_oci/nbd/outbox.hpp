// SPDX-License-Identifier: Apache-2.0
/// @file
/// Outbox: sends the replies of one socket, whole and one after the other, without blocking.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <mutex>
#include <new>
#include <optional>
#include <utility>

#include <sys/socket.h>

#include <erofs_oci/nbd/buffer_pool.hpp>
#include <erofs_oci/nbd/reply.hpp>
#include <erofs_oci/nbd/reply_queue.hpp>
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

/// Sends replies without waiting for the peer: it keeps what the socket does not take at once for
/// flush(), which the socket's own thread calls. So a peer that stops reading does not block the
/// threads of the pool, which other sockets need; the Window bounds what is kept.
///
/// @par Thread safety
/// send(), broken(), break_off() from any thread; the rest on the socket's thread.
class Outbox {
 public:
  /// Borrows all four. `wakeup` is notified when there is something to flush, when the socket
  /// broke, and when a reply left the Window after wait_for_room().
  Outbox(int socket, BufferPool& pool, Window& window, Wakeup const& wakeup) noexcept
      : socket_(socket), pool_(pool), window_(window), wakeup_(wakeup) {}

  /// Sends or keeps `reply`, or drops it once the socket is broken.
  void send(Reply reply) noexcept {
    std::lock_guard const lock(mutex_);
    if (broken_) return drop(reply);
    try {
      queue_.push(std::move(reply));
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
    auto const before = queue_.sent();
    push();
    if (queue_.sent() != before) stalled_since_ = Clock::now();
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

  /// Has the next reply that leaves notify `wakeup`. The caller must check the Window again between
  /// this call and waiting.
  void wait_for_room() noexcept { waiting_ = true; }

 private:
  using Clock = std::chrono::steady_clock;

  void push() {
    if (!queue_.send(socket_, [this](Reply& reply) { drop(reply); })) give_up();
  }

  void drop(Reply& reply) noexcept {
    pool_.give(std::move(reply.body));
    abandon(reply.charge);
  }

  void give_up() noexcept {
    if (broken_.exchange(true)) return;
    queue_.clear([this](Reply& reply) { drop(reply); });
    ::shutdown(socket_, SHUT_RDWR);
    wakeup_.notify();
  }

  int socket_;
  BufferPool& pool_;
  Window& window_;
  Wakeup const& wakeup_;
  std::atomic<bool> waiting_ = false;
  std::atomic<bool> broken_ = false;
  std::mutex mutex_;
  ReplyQueue<Reply> queue_;
  Clock::time_point stalled_since_{};
};

}  // namespace erofs_oci::nbd
