// SPDX-License-Identifier: Apache-2.0
/// @file
/// NbdEngine: reads a source for a relay in another process.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

#include <poll.h>
#include <sys/socket.h>

#include <erofs_oci/core/activity.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/shared_memory.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/core/workers.hpp>
#include <erofs_oci/nbd/engine_protocol.hpp>
#include <erofs_oci/nbd/protocol.hpp>
#include <erofs_oci/nbd/session.hpp>
#include <erofs_oci/nbd/wakeup.hpp>

namespace erofs_oci {

/// How NbdEngine works.
struct NbdEngineOptions {
  std::size_t workers = 0;  ///< threads that read the source. 0: 2 + the number of processors
  /// Called for each failed read, from any thread, several at once.
  OnReadError on_read_error{};
  /// Called on run()'s thread whenever it has looked for requests, a sign that they are still
  /// taken: at least once a second, and every 20 ms while any is unanswered.
  std::function<void(Activity<> const& reads)> on_tick{};
};

/// Carries out what an NbdRelay hands over, until the relay closes the channel. It owns nothing of
/// the connection to the kernel, so it can be killed at any instant and another can go on.
///
/// @par Thread safety
/// run() once.
template <RandomAccessSource Source>
class NbdEngine {
 public:
  /// Owns the source.
  /// @error{as SharedMemory::map(), as there}
  [[nodiscard]] static Result<NbdEngine> open(Source source, nbd::RelayPort port,
                                              NbdEngineOptions options = {}) {
    auto arena = SharedMemory::map(std::move(port.arena));
    if (!arena) return fail(std::move(arena).error(), "nbd engine");
    auto wakeup = nbd::Wakeup::open();
    if (!wakeup) return fail(std::move(wakeup).error());
    return NbdEngine(std::move(source), std::move(port.channel), *std::move(arena),
                     *std::move(wakeup), std::move(options));
  }

  [[nodiscard]] Source const& source() const noexcept { return source_; }

  /// Serves until the channel is closed or `stop` is asked for; what has begun is answered first.
  /// @error{Errc::protocol, the relay asks for what cannot be}
  /// @error{an errno, as recv(2) and poll(2)}
  [[nodiscard]] Result<void> run(std::stop_token stop) {
    std::stop_callback const wake(stop, [this] { wakeup_.notify(); });
    auto const cores = std::max(std::thread::hardware_concurrency(), 1U);
    Workers workers(options_.workers != 0 ? options_.workers : std::size_t{2} + cores, queue);
    auto const packet = std::make_unique<nbd::Packet<nbd::EngineRequest>>();
    while (!stop.stop_requested()) {
      if (auto const ok = wait(); !ok) return ok;
      if (options_.on_tick) options_.on_tick(*activity_);
      auto const n =
          ::recv(channel_.get(), packet->room().data(), packet->room().size(), MSG_DONTWAIT);
      if (n == 0 || (n < 0 && errno == ECONNRESET)) return {};
      if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) continue;
        return fail_errno(errno, "nbd engine: receive");
      }
      auto const count = packet->count(static_cast<std::size_t>(n));
      if (count == 0) return fail(Errc::protocol, "nbd engine: a packet that is no request");
      for (std::size_t i = 0; i < count; ++i) {
        if (auto const ok = begin((*packet)[i], workers); !ok) return ok;
      }
    }
    return {};
  }

 private:
  static constexpr std::size_t queue = 8192;  // more than a relay ever has in flight

  NbdEngine(Source source, UniqueFd channel, SharedMemory arena, nbd::Wakeup wakeup,
            NbdEngineOptions options)
      : source_(std::move(source)),
        channel_(std::move(channel)),
        arena_(std::move(arena)),
        wakeup_(std::move(wakeup)),
        options_(std::move(options)) {}

  Result<void> wait() const {
    pollfd fds[2] = {{channel_.get(), POLLIN, 0}, {wakeup_.fd(), POLLIN, 0}};
    auto const tick = activity_->under_way() == 0 ? 1000 : 20;  // milliseconds
    if (::poll(fds, 2, tick) < 0 && errno != EINTR) return fail_errno(errno, "poll");
    return {};
  }

  Result<void> begin(nbd::EngineRequest const& request, Workers& workers) {
    auto const room = arena_.bytes().size();
    if (request.command == nbd::EngineCommand::prefetch) {
      prefetch(source_, request.offset, request.length);
      return {};
    }
    if (request.command != nbd::EngineCommand::read || request.length > room ||
        request.place > room - request.length) {
      return fail(Errc::protocol, "nbd engine: a request outside of the arena");
    }
    activity_->begin();
    workers.submit([this, request] { serve(request); });
    return {};
  }

  void serve(nbd::EngineRequest const& request) const noexcept {
    auto const out =
        arena_.bytes().subspan(static_cast<std::size_t>(request.place), request.length);
    Error error;
    try {
      auto const n = source_.read_at(request.offset, out);
      if (n && *n == out.size()) return answer(request, nbd::Errno::none);
      error =
          n ? Error{make_error_code(Errc::truncated),
                    "the source has " + std::to_string(*n) + " of " + std::to_string(out.size()) +
                        " bytes at offset " + std::to_string(request.offset)}
            : n.error();
      if (options_.on_read_error) {
        options_.on_read_error(request.offset, request.length, error);
      }
    } catch (std::bad_alloc const&) {
      error.code = make_error_code(std::errc::not_enough_memory);
    } catch (std::exception const&) {  // the worker is shared: it must live on
      error.code = make_error_code(std::errc::io_error);
    }
    answer(request, nbd::to_errno(error.code));
  }

  void answer(nbd::EngineRequest const& request, nbd::Errno error) const noexcept {
    activity_->end();
    nbd::EngineAnswer const message{request.id, static_cast<std::uint32_t>(error)};
    // A relay that is gone wants no answer.
    while (::send(channel_.get(), &message, sizeof message, MSG_NOSIGNAL) < 0 && errno == EINTR) {}
  }

  Source source_;
  UniqueFd channel_;
  SharedMemory arena_;
  nbd::Wakeup wakeup_;
  NbdEngineOptions options_;
  std::unique_ptr<Activity<>> activity_ = std::make_unique<Activity<>>();
};

}  // namespace erofs_oci
