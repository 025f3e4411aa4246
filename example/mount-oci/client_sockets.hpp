// SPDX-License-Identifier: Apache-2.0
/// @file
/// ClientSockets: what a listening socket does in a poll(2) loop.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>

#include <erofs_oci/posix/timer.hpp>
#include <erofs_oci/posix/unix_socket.hpp>

#include "process.hpp"

namespace mount_oci {

/// A listening socket and its clients. For one thread's poll(2) loop, which has more urgent work:
/// never blocks, accepts one client a round and at most 32 a second, and none for 100 ms after
/// there was no descriptor or memory for one.
class ClientSockets {
 public:
  struct Client {
    UniqueFd fd;
    std::string request{};  ///< what has come of it
    unsigned rounds = 0;    ///< in which something has come; at most 64
  };

  /// Receives and answers without blocking; yields whether more has to come. May take `fd` away.
  using Serve = std::function<bool(Client&)>;

  /// Whom a client waits for that is one too many.
  enum class Full : bool {
    waits,         ///< for another one's end
    drops_oldest,  ///< nobody, so that a silent client cannot keep others out
  };

  /// Serves nobody.
  ClientSockets() = default;

  /// @param listener  non-blocking
  /// @param path      its file, which is removed in the end; empty: it has none
  ClientSockets(UniqueFd listener, std::string const& path, std::size_t most, Full full,
                Serve serve)
      : listener_(std::move(listener)),
        timer_(erofs_oci::Timer::open().value_or(erofs_oci::Timer())),
        most_(most),
        full_(full),
        serve_(std::move(serve)) {
    if (!path.empty()) file_ = std::make_unique<erofs_oci::SocketPath>(path);
  }

  /// Adds what to wait for.
  void watch(std::vector<pollfd>& fds) const {
    auto const accepts = full_ == Full::drops_oldest || clients_.size() < most_;
    fds.push_back({is_paused_ ? timer_.fd() : listener_.get(),
                   static_cast<short>(accepts || is_paused_ ? POLLIN : 0), 0});
    for (auto const& client : clients_) fds.push_back({client.fd.get(), POLLIN, 0});
  }

  /// How many descriptors watch() adds.
  [[nodiscard]] std::size_t count() const noexcept { return clients_.size() + 1; }

  /// Accepts, receives and answers without blocking; `fds` are those of watch().
  void act(std::span<pollfd const> fds) {
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      auto& client = clients_[i];
      if (fds[i + 1].revents == 0) continue;
      if (!serve_(client) || ++client.rounds == most_rounds) client.fd.reset();
    }
    std::erase_if(clients_, [](Client const& client) { return !client.fd; });
    if (fds[0].revents != 0) accept();
  }

 private:
  static constexpr unsigned most_rounds = 64;
  static constexpr unsigned most_a_second = 32;

  void accept() {
    if (std::exchange(is_paused_, false)) {
      timer_.clear();
      return;
    }
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      // The client stays in the queue, and poll(2) would return at once.
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        pause(std::chrono::milliseconds(100));
      return;
    }
    if (clients_.size() == most_) clients_.erase(clients_.begin());
    clients_.push_back({std::move(fd)});
    auto const now = std::chrono::steady_clock::now();
    if (now - second_ > std::chrono::seconds(1)) second_ = now, accepted_ = 0;
    if (++accepted_ == most_a_second) pause(std::chrono::seconds(1));
  }

  void pause(erofs_oci::Timer::Duration time) { is_paused_ = timer_.once(time).has_value(); }

  std::unique_ptr<erofs_oci::SocketPath> file_;
  UniqueFd listener_;
  erofs_oci::Timer timer_;
  bool is_paused_ = false;                          // until the timer ends
  std::chrono::steady_clock::time_point second_{};  // when counting began
  unsigned accepted_ = 0;                           // since then
  std::size_t most_ = 0;
  Full full_ = Full::waits;
  Serve serve_;
  std::vector<Client> clients_;
};

}  // namespace mount_oci
