// SPDX-License-Identifier: Apache-2.0
/// @file
/// RawClient: an NBD client that sends exactly what a test wants, and a session for it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/nbd/session.hpp>

namespace erofs_oci::nbd::testing {

using namespace std::chrono_literals;

/// Two connected stream sockets.
inline std::pair<UniqueFd, UniqueFd> socket_pair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    throw std::runtime_error("socketpair");
  }
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

/// The client's end of a socket. Every wait ends in an exception after ten seconds.
class RawClient {
 public:
  explicit RawClient(UniqueFd fd) : fd_(std::move(fd)) {}

  void send(std::span<std::byte const> bytes) const {
    while (!bytes.empty()) {
      auto const n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0) throw std::runtime_error("send");
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }

  void send(Request const& request) const { send(encode(request)); }

  /// Exactly `n` bytes, or fewer if the connection ends first.
  [[nodiscard]] Bytes receive(std::size_t n) const {
    Bytes bytes(n);
    std::size_t done = 0;
    while (done < n && wait(10s)) {
      auto const got = ::recv(fd_.get(), bytes.data() + done, n - done, 0);
      if (got <= 0) break;
      done += static_cast<std::size_t>(got);
    }
    bytes.resize(done);
    return bytes;
  }

  /// All bytes up to the connection's end.
  [[nodiscard]] Bytes receive_all() const {
    Bytes all;
    for (;;) {
      auto const part = receive(1);
      if (part.empty()) return all;
      all.push_back(part.front());
    }
  }

  [[nodiscard]] SimpleReply simple_reply() const {
    auto const raw = receive(SimpleReply::wire_size);
    if (raw.size() != SimpleReply::wire_size) throw std::runtime_error("no reply");
    auto const reply = decode_simple_reply(std::span(raw).first<SimpleReply::wire_size>());
    if (!reply) throw std::runtime_error(reply.error().message());
    return *reply;
  }

  [[nodiscard]] std::pair<Chunk, Bytes> chunk() const {
    auto const raw = receive(Chunk::wire_size);
    if (raw.size() != Chunk::wire_size) throw std::runtime_error("no chunk");
    auto const chunk = decode_chunk(std::span(raw).first<Chunk::wire_size>());
    if (!chunk) throw std::runtime_error(chunk.error().message());
    auto payload = receive(chunk->length);
    if (payload.size() != chunk->length) throw std::runtime_error("half a chunk");
    return {*chunk, std::move(payload)};
  }

  /// Whether nothing arrives for a while.
  [[nodiscard]] bool silent(std::chrono::milliseconds pause = 50ms) const { return !poll(pause); }

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  void close() noexcept { fd_.reset(); }

 private:
  [[nodiscard]] bool poll(std::chrono::milliseconds limit) const {
    pollfd entry{fd_.get(), POLLIN, 0};
    return ::poll(&entry, 1, static_cast<int>(limit.count())) > 0;
  }

  [[nodiscard]] bool wait(std::chrono::milliseconds limit) const {
    if (poll(limit)) return true;
    throw std::runtime_error("the server says nothing");
  }

  UniqueFd fd_;
};

struct SessionSetup {
  Negotiated negotiated{};
  SessionLimits limits{};
  std::size_t workers = 2;
  std::optional<std::uint64_t> size{};  ///< what the export says instead of the source's size
  std::uint64_t zeros_from = Export{}.zeros_from;
  OnReadError on_read_error{};
};

/// A session over a socketpair, on a thread of its own.
class RunningSession {
 public:
  explicit RunningSession(AnySource source, SessionSetup setup = {})
      : RunningSession(std::move(source), std::move(setup), socket_pair()) {}

  ~RunningSession() {
    client.close();
    stop();
  }

  RunningSession(RunningSession const&) = delete;
  RunningSession& operator=(RunningSession const&) = delete;

  /// Waits for the session's end.
  [[nodiscard]] Result<SessionEnd> end() {
    thread_.join();
    return *std::exchange(result_, std::nullopt);
  }

  void stop() { thread_.request_stop(); }

  RawClient client;

 private:
  RunningSession(AnySource source, SessionSetup setup, std::pair<UniqueFd, UniqueFd> sockets)
      : client(std::move(sockets.first)),
        setup_(std::move(setup)),
        source_(std::move(source)),
        socket_(std::move(sockets.second)),
        workers_(setup_.workers, 256) {
    export_.size = setup_.size.value_or(source_.size());
    export_.zeros_from = setup_.zeros_from;
    thread_ = std::jthread([this](std::stop_token stop) {
      SessionContext const context{workers_, buffers_, setup_.on_read_error};
      NbdSession session(socket_.get(), source_, export_, context, *Wakeup::open(),
                         setup_.negotiated, setup_.limits);
      result_ = session.run(std::move(stop));
      socket_.reset();
    });
  }

  SessionSetup setup_;
  AnySource source_;
  Export export_{};
  UniqueFd socket_;
  BufferPool buffers_;
  ThreadPool workers_;
  std::optional<Result<SessionEnd>> result_;
  std::jthread thread_;
};

/// Connects to a unix socket.
inline RawClient connect_unix(std::string const& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::connect(fd.get(), reinterpret_cast<sockaddr const*>(&address), sizeof address) != 0) {
    throw std::runtime_error("connect to " + path);
  }
  return RawClient(std::move(fd));
}

}  // namespace erofs_oci::nbd::testing
