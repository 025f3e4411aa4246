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
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>

#include <poll.h>

#include <erofs_oci/core/source.hpp>
#include <erofs_oci/core/thread_pool.hpp>
#include <erofs_oci/nbd/buffer_pool.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/outbox.hpp>
#include <erofs_oci/nbd/protocol.hpp>
#include <erofs_oci/nbd/reply.hpp>
#include <erofs_oci/nbd/request_reader.hpp>
#include <erofs_oci/nbd/wakeup.hpp>

namespace erofs_oci {

/// Called for each READ that failed in the source, with its offset and length in bytes and the
/// error. From any thread, several at once.
using OnReadError =
    std::function<void(std::uint64_t offset, std::uint32_t length, Error const& error)>;

namespace nbd {

/// The error of a source that has only `n` of the bytes that it should have.
[[nodiscard]] inline Error short_read(std::uint64_t offset, std::uint32_t length, std::size_t n) {
  return make_error(Errc::truncated, "the source has " + std::to_string(n) + " of " +
                                         std::to_string(length) + " bytes at offset " +
                                         std::to_string(offset));
}

}  // namespace nbd

/// How a session ended without an error.
enum class SessionEnd {
  disconnected,  ///< the client sent DISC and has all its replies
  hung_up,       ///< the client closed the socket
  stopped,       ///< a stop was requested
};

/// What the sessions of one server share; borrowed.
struct SessionContext {
  ThreadPool& workers;
  nbd::BufferPool& buffers;
  OnReadError const& on_read_error;  ///< may be empty
  /// Gets the time of steady_clock at which something has come from the client last; or null.
  std::atomic<std::chrono::steady_clock::rep>* heard = nullptr;
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
/// READs run on the shared ThreadPool, which never waits for this client. Data is read before a
/// status is sent: a failed read is an error reply and never bytes. Bytes past the export's end are
/// never asked of the source.
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

  /// Serves until the client or `stop` ends it; returns once no worker uses this object.
  /// @error{Errc::protocol, the client broke the protocol; the connection was dropped}
  /// @error{Errc::timed_out, the client took no byte of a reply for too long}
  [[nodiscard]] Result<SessionEnd> run(std::stop_token stop) {
    std::stop_callback const wake(stop, [this] { wakeup_.notify(); });
    auto end = receive(stop);
    if (!end || *end == SessionEnd::hung_up) outbox_.break_off();
    stopping_ = end && *end == SessionEnd::stopped;
    auto const drained = drain(stopping_);
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return tasks_ == 0; });
    if (end && !drained) return fail(drained.error());
    return end;
  }

 private:
  using Command = nbd::Command;
  using Errno = nbd::Errno;
  using Fill = nbd::RequestReader::Fill;
  using Request = nbd::Request;

  enum class Parse { starved, crowded, ended };  // needs bytes; needs room; DISC

  // --- reading requests: on run()'s thread ---------------------------------------------------

  Result<SessionEnd> receive(std::stop_token const& stop) {
    while (!stop.stop_requested()) {
      EROFS_OCI_TRY_ASSIGN(auto const state, parse());
      if (state == Parse::ended) return SessionEnd::disconnected;
      if (state == Parse::crowded) {
        outbox_.wait_for_room();
        if (auto const again = parse(); !again || *again != Parse::crowded) {
          if (!again) return fail(again.error());
          if (*again == Parse::ended) return SessionEnd::disconnected;
          continue;
        }
        EROFS_OCI_TRY(wait(0, std::nullopt));
        if (outbox_.broken()) return SessionEnd::hung_up;
        continue;
      }
      auto const n = reader_.fill(socket_);
      if (!n && !outbox_.broken()) return fail(n.error());
      if (!n || *n == Fill::closed) return SessionEnd::hung_up;
      if (context_.heard != nullptr && *n != Fill::nothing) {
        *context_.heard = Clock::now().time_since_epoch().count();
      }
      if (*n == Fill::nothing) {
        EROFS_OCI_TRY(wait(POLLIN, std::nullopt));
      }
    }
    return SessionEnd::stopped;
  }

  /// Starts every request that has arrived and that there is room for.
  Result<Parse> parse() {
    for (;;) {
      EROFS_OCI_TRY_ASSIGN(auto const request, reader_.next());
      if (!request) return Parse::starved;
      if (request->is(Command::disconnect)) return Parse::ended;
      if (!window_.enter(nbd::charge(*request))) return Parse::crowded;
      reader_.take();
      start(*request);
    }
  }

  void start(Request const& request) {
    auto const error = judge(request, export_, negotiated_);
    if (error != Errno::none) return refuse(request, error);
    switch (Command{request.type}) {
      case Command::read: return read(request);
      case Command::block_status: return outbox_.send(block_status_reply(request, export_));
      default: return acknowledge(request);  // CACHE is a hint; there is nothing to do
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

  /// On a thread of the pool: reads the data before it sends a status.
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
      error = n ? nbd::short_read(request.offset, request.length, *n) : n.error();
    } catch (std::bad_alloc const&) {
      error.code = make_error_code(std::errc::not_enough_memory);
    } catch (std::exception const&) {  // the pool's thread is shared and must go on
      error.code = make_error_code(std::errc::io_error);
    }
    context_.buffers.give(std::move(reply.body));
    report(request, error, at);
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
    // With POLLIN a hang-up shows as the end of the input; without it, only as POLLHUP.
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
      // Only a stalled peer ends the session; a slow source has its own deadline.
      auto const ok = wait(0, outbox_.stalled_since() ? deadline : std::nullopt);
      if (ok) continue;
      outbox_.break_off();
      return bounded ? Result<void>() : ok;
    }
    return {};
  }

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

  nbd::RequestReader reader_{64 * 1024};

  std::mutex mutex_;
  std::condition_variable idle_;
  std::size_t tasks_ = 0;  // on workers
};

}  // namespace erofs_oci
