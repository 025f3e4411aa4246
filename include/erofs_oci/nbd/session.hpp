// SPDX-License-Identifier: Apache-2.0
/// @file
/// NbdSession: the transmission phase on one socket.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>

#include <poll.h>
#include <sys/socket.h>

#include <erofs_oci/core/source.hpp>
#include <erofs_oci/core/workers.hpp>
#include <erofs_oci/nbd/buffer_pool.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/outbox.hpp>
#include <erofs_oci/nbd/protocol.hpp>
#include <erofs_oci/nbd/reply.hpp>
#include <erofs_oci/nbd/wakeup.hpp>

namespace erofs_oci {

/// Called for each READ that the source failed: offset and length in bytes, and why. From any
/// thread, several at once.
using OnReadError =
    std::function<void(std::uint64_t offset, std::uint32_t length, Error const& error)>;

/// How a session ended without an error.
enum class SessionEnd {
  disconnected,  ///< the client said so, and had all its replies
  hung_up,       ///< the client closed the socket
  stopped,       ///< we were told to stop
};

/// What the sessions of one server share; borrowed.
struct SessionContext {
  Workers& workers;
  nbd::BufferPool& buffers;
  OnReadError const& on_read_error;  ///< may be empty
};

/// How much one socket may ask for at once.
struct SessionLimits {
  std::size_t requests = 128;                     ///< in flight; the kernel has 128 a socket
  std::size_t bytes = 32 * 1024 * 1024;           ///< of replies; one reply always fits
  std::chrono::milliseconds drain_timeout{5000};  ///< for a peer to take the last replies of a stop
};

/// Answers the requests of one client, in the order in which the answers are there.
///
/// One thread, the one in run(), reads requests and sends what the socket did not take at once.
/// READs run on the shared Workers, which never wait for this client. Data is read before a status
/// is sent: a failed read is an error reply and never bytes. Bytes past the export's end are never
/// asked of the source.
template <RandomAccessSource Source>
class NbdSession {
 public:
  /// Borrows all but the last four.
  NbdSession(int socket, Source const& source, Export const& served, SessionContext context,
             nbd::Wakeup wakeup, Negotiated negotiated, SessionLimits limits = {})
      : socket_(socket),
        source_(source),
        export_(served),
        context_(context),
        negotiated_(negotiated),
        limits_(limits),
        wakeup_(std::move(wakeup)),
        window_(limits.requests, limits.bytes),
        outbox_(socket, context.buffers, window_, wakeup_) {}

  NbdSession(NbdSession const&) = delete;
  NbdSession& operator=(NbdSession const&) = delete;
  ~NbdSession() = default;

  /// Serves until the client or `stop` ends it; returns once no worker uses this object.
  /// @error{Errc::protocol, the client broke the protocol; the connection was dropped}
  /// @error{Errc::timed_out, the client took no byte of a reply for too long}
  [[nodiscard]] Result<SessionEnd> run(std::stop_token stop) {
    std::stop_callback const wake(stop, [this] { wakeup_.notify(); });
    auto end = receive(stop);
    if (!end || *end == SessionEnd::hung_up) outbox_.break_off();
    if (end && *end == SessionEnd::stopped) stopping_ = true;
    auto const drained = drain(end && *end == SessionEnd::stopped);
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return tasks_ == 0; });
    if (end && !drained) return fail(drained.error());
    return end;
  }

 private:
  using Command = nbd::Command;
  using Errno = nbd::Errno;
  using Request = nbd::Request;

  enum class Parse { starved, crowded, ended };  // needs bytes; needs room; DISC

  // --- reading requests: on run()'s thread ---------------------------------------------------

  Result<SessionEnd> receive(std::stop_token const& stop) {
    while (!stop.stop_requested()) {
      auto const state = parse();
      if (!state) return fail(state.error());
      if (*state == Parse::ended) return SessionEnd::disconnected;
      if (*state == Parse::crowded) {
        outbox_.wait_for_room();
        if (auto const again = parse(); !again || *again != Parse::crowded) {
          if (!again) return fail(again.error());
          if (*again == Parse::ended) return SessionEnd::disconnected;
          continue;
        }
        if (auto const ok = wait(0, std::nullopt); !ok) return fail(ok.error());
        if (outbox_.broken()) return SessionEnd::hung_up;
        continue;
      }
      auto const n = fill();
      if (!n) return fail(n.error());
      if (*n == Fill::closed) return SessionEnd::hung_up;
      if (*n == Fill::nothing) {
        if (auto const ok = wait(POLLIN, std::nullopt); !ok) return fail(ok.error());
      }
    }
    return SessionEnd::stopped;
  }

  enum class Fill { some, nothing, closed };

  /// Adds to the input what has arrived.
  Result<Fill> fill() {
    if (begin_ != 0) {
      std::copy(input_.get() + begin_, input_.get() + end_, input_.get());
      end_ -= begin_;
      begin_ = 0;
    }
    for (;;) {
      auto const n = ::recv(socket_, input_.get() + end_, input_size - end_, MSG_DONTWAIT);
      if (n == 0) return Fill::closed;
      if (n > 0) {
        end_ += static_cast<std::size_t>(n);
        return Fill::some;
      }
      if (errno == EAGAIN || errno == EWOULDBLOCK) return Fill::nothing;
      if (errno == ECONNRESET || errno == EPIPE || outbox_.broken()) return Fill::closed;
      if (errno != EINTR) return fail_errno(errno, "nbd: receive");
    }
  }

  /// Starts every request of the input that there is room for.
  Result<Parse> parse() {
    for (;;) {
      if (payload_left_ > 0) {
        auto const n = std::min<std::size_t>(payload_left_, end_ - begin_);
        begin_ += n;
        payload_left_ -= static_cast<std::uint32_t>(n);
        if (payload_left_ > 0) return Parse::starved;
        refuse(write_, write_error_);
      }
      if (end_ - begin_ < Request::wire_size) return Parse::starved;
      auto const raw = std::span<std::byte const>(input_.get() + begin_, end_ - begin_);
      auto const request = nbd::decode_request(raw.first<Request::wire_size>());
      if (!request) return fail(request.error());
      if (request->is(Command::disconnect)) return Parse::ended;
      if (request->is(Command::write) && request->length > nbd::max_payload + write_slack) {
        return fail(Errc::protocol,
                    "nbd: a WRITE of " + std::to_string(request->length) + " bytes");
      }
      if (!window_.enter(nbd::charge(*request))) return Parse::crowded;
      begin_ += Request::wire_size;
      start(*request);
    }
  }

  void start(Request const& request) {
    auto const error = judge(request, export_, negotiated_);
    if (request.is(Command::write)) {
      write_ = request;
      write_error_ = error;
      payload_left_ = request.length;
      if (payload_left_ == 0) refuse(write_, write_error_);
      return;
    }
    if (error != Errno::none) return refuse(request, error);
    switch (Command{request.type}) {
      case Command::read: return read(request);
      case Command::cache: return cache(request);
      case Command::block_status: return outbox_.send(block_status_reply(request, export_));
      default: return acknowledge(request);
    }
  }

  // --- answers: on run()'s thread, but for serve() and what it calls ---------------------------

  void acknowledge(Request const& request) noexcept {
    outbox_.send(success_reply(request, negotiated_));
  }

  void refuse(Request const& request, Errno error) noexcept {
    outbox_.send(
        error_reply(request, negotiated_, error, explain(error), std::nullopt, context_.buffers));
  }

  void cache(Request const& request) {
    try {
      prefetch(source_, request.offset, request.length);
    } catch (std::bad_alloc const&) {
      return refuse(request, Errno::nomem);
    }
    acknowledge(request);
  }

  void read(Request const& request) {
    if (request.length == 0) return acknowledge(request);
    add_task();
    try {
      context_.workers.submit([this, request] {
        serve(request);
        remove_task();  // the last use of *this: run() may return now
      });
    } catch (std::bad_alloc const&) {
      refuse(request, Errno::nomem);
      remove_task();
    }
  }

  /// On a worker: data first, status second.
  void serve(Request const& request) noexcept {
    if (outbox_.broken()) return outbox_.abandon(charge(request));
    if (stopping_) return refuse(request, Errno::shutdown);
    auto reply = nbd::empty_reply(request);
    std::optional<std::uint64_t> at;
    Error error;
    try {
      reply.body = context_.buffers.take(request.length);
      auto const n = source_.read_at(request.offset, reply.body.first(request.length));
      if (n && *n == request.length) {
        reply.body_size = request.length;
        head_data(reply, request, negotiated_);
        return outbox_.send(std::move(reply));
      }
      if (n) at = request.offset + *n;
      error = n ? short_read(request, *n) : n.error();
    } catch (std::bad_alloc const&) {
      error.code = make_error_code(std::errc::not_enough_memory);
    } catch (std::exception const&) {  // the worker is shared: it must live on
      error.code = make_error_code(std::errc::io_error);
    }
    context_.buffers.give(std::move(reply.body));
    report(request, error, at);
  }

  [[nodiscard]] static Error short_read(Request const& request, std::size_t n) {
    return Error{make_error_code(Errc::truncated),
                 "the source has " + std::to_string(n) + " of " + std::to_string(request.length) +
                     " bytes at offset " + std::to_string(request.offset)};
  }

  void report(Request const& request, Error const& error,
              std::optional<std::uint64_t> at) noexcept {
    std::string text;
    try {
      if (context_.on_read_error) context_.on_read_error(request.offset, request.length, error);
      text = error.message();
    } catch (std::bad_alloc const&) {
      // The client still gets the number.
    }
    outbox_.send(
        error_reply(request, negotiated_, nbd::to_errno(error.code), text, at, context_.buffers));
  }

  void add_task() noexcept {
    std::lock_guard const lock(mutex_);
    ++tasks_;
  }

  void remove_task() noexcept {
    std::lock_guard const lock(mutex_);
    if (--tasks_ == 0) idle_.notify_all();
  }

  // --- waiting -------------------------------------------------------------------------------

  using Clock = std::chrono::steady_clock;

  /// Waits for `events` on the socket, room to send if something is kept, a wakeup, or a deadline.
  Result<void> wait(short events, std::optional<Clock::time_point> deadline) {
    auto const stall_limit = [this]() -> std::optional<Clock::time_point> {
      auto const since = outbox_.stalled_since();
      if (!since || negotiated_.send_timeout.count() == 0) return std::nullopt;
      return *since + negotiated_.send_timeout;
    };
    if (outbox_.stalled_since()) events |= POLLOUT;
    auto const limit = stall_limit();
    auto const first = limit && deadline ? std::min(*limit, *deadline) : limit ? limit : deadline;
    std::array<pollfd, 2> fds{{{socket_, events, 0}, {wakeup_.fd(), POLLIN, 0}}};
    auto const n = ::poll(fds.data(), fds.size(), remaining(first));
    if (n < 0 && errno != EINTR) return fail_errno(errno, "nbd: poll");
    if (n < 0) return {};
    if (fds[1].revents != 0) wakeup_.clear();
    if ((fds[0].revents & POLLOUT) != 0) outbox_.flush();
    // With POLLIN a hang-up shows as an end of the input; without, nobody would see it.
    if ((events & POLLIN) == 0 && (fds[0].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0) {
      outbox_.break_off();
    }
    auto const now = Clock::now();
    auto const still = stall_limit();
    if ((still && now >= *still) || (deadline && now >= *deadline)) {
      return fail(Errc::timed_out, "nbd: the client takes no more bytes");
    }
    return {};
  }

  /// Milliseconds for poll(2), rounded up.
  [[nodiscard]] static int remaining(std::optional<Clock::time_point> deadline) noexcept {
    if (!deadline) return -1;
    auto const left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now());
    return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
  }

  /// Sends what is in flight, unless the socket is broken.
  Result<void> drain(bool bounded) {
    std::optional<Clock::time_point> deadline;
    if (bounded) deadline = Clock::now() + limits_.drain_timeout;
    while (!window_.empty() && !outbox_.broken()) {
      outbox_.wait_for_room();
      if (window_.empty()) break;
      // Only a stalled peer is given up: a slow source ends by its own deadline.
      auto const ok = wait(0, outbox_.stalled_since() ? deadline : std::nullopt);
      if (ok) continue;
      outbox_.break_off();
      if (bounded) return {};
      return ok;
    }
    return {};
  }

  static constexpr std::size_t input_size = 64 * 1024;
  static constexpr std::uint32_t write_slack = 1024 * 1024;

  int socket_;
  Source const& source_;
  Export const& export_;
  SessionContext context_;
  Negotiated negotiated_;
  SessionLimits limits_;
  nbd::Wakeup wakeup_;
  nbd::Window window_;
  nbd::Outbox outbox_;
  std::atomic<bool> stopping_ = false;

  std::unique_ptr<std::byte[]> input_ = std::make_unique_for_overwrite<std::byte[]>(input_size);
  std::size_t begin_ = 0;  // input_[begin_, end_) is unparsed
  std::size_t end_ = 0;
  std::uint32_t payload_left_ = 0;  // of write_, still to be read and dropped
  Request write_{};
  Errno write_error_ = Errno::none;

  std::mutex mutex_;
  std::condition_variable idle_;
  std::size_t tasks_ = 0;  // on workers
};

}  // namespace erofs_oci
