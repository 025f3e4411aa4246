// SPDX-License-Identifier: Apache-2.0
/// @file
/// NbdEngine: reads a source for a relay in another process.
#pragma once

#include <algorithm>
#include <atomic>
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
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/core/thread_pool.hpp>
#include <erofs_oci/nbd/engine_protocol.hpp>
#include <erofs_oci/nbd/protocol.hpp>
#include <erofs_oci/nbd/session.hpp>
#include <erofs_oci/nbd/wakeup.hpp>
#include <erofs_oci/posix/shared_memory.hpp>

namespace erofs_oci {

/// How NbdEngine works.
struct NbdEngineOptions {
  std::size_t workers = 0;  ///< threads that read the source. 0: 2 + the number of processors
  /// Called for each failed read, from any thread, several at once.
  OnReadError on_read_error{};
  /// Called on run()'s thread each time that it has looked for requests: at least once a second,
  /// and within 20 ms of a call with `busy` set. `busy` is set while a request is unanswered.
  std::function<void(Activity<> const& reads, bool busy)> on_tick{};
  /// Called once by run() when it begins no more reads, before it waits for those that it has
  /// begun: ends them early, if the source can.
  std::function<void()> on_end{};
};

/// The part of a worker that answers the READs that an NbdRelay sends it. It owns nothing of the
/// connection to the kernel: it can be killed at any instant, and another engine then answers its
/// READs.
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
    EROFS_OCI_TRY_ASSIGN(auto arena, SharedMemory::map(std::move(port.arena)), "nbd engine");
    EROFS_OCI_TRY_ASSIGN(auto wakeup, nbd::Wakeup::open());
    return NbdEngine(std::move(source), std::move(port.channel), std::move(arena),
                     std::move(wakeup), std::move(options));
  }

  [[nodiscard]] Source const& source() const noexcept { return source_; }

  /// Blocks and serves until the relay closes the channel or `stop` is requested; then waits for
  /// the reads that it has begun. A read that fails after that is not answered: it is left to the
  /// next engine.
  /// @error{Errc::protocol, the relay sends what is no request}
  /// @error{an errno, as recv(2) and poll(2)}
  [[nodiscard]] Result<void> run(std::stop_token stop) {
    std::stop_callback const wake(stop, [this] { wakeup_.notify(); });
    auto const cores = std::max(std::thread::hardware_concurrency(), 1U);
    ThreadPool workers(options_.workers != 0 ? options_.workers : std::size_t{2} + cores, queue);
    AtEnd const at_end{*this};  // before the pool's own
    auto const packet = std::make_unique<nbd::Packet<nbd::EngineRequest>>();
    while (!stop.stop_requested()) {
      EROFS_OCI_TRY(wait());
      auto const busy = rhythm_.look(*activity_);
      if (options_.on_tick) options_.on_tick(*activity_, busy);
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
        EROFS_OCI_TRY(begin((*packet)[i], workers));
      }
    }
    return {};
  }

 private:
  static constexpr std::size_t queue = 8192;  // more than a relay ever has in flight

  struct AtEnd {
    explicit AtEnd(NbdEngine& one) noexcept : engine(one) {}
    AtEnd(AtEnd const&) = delete;
    AtEnd& operator=(AtEnd const&) = delete;
    ~AtEnd() {
      *engine.ends_ = true;
      if (engine.options_.on_end) engine.options_.on_end();
    }
    NbdEngine& engine;
  };

  NbdEngine(Source source, UniqueFd channel, SharedMemory arena, nbd::Wakeup wakeup,
            NbdEngineOptions options)
      : source_(std::move(source)),
        channel_(std::move(channel)),
        arena_(std::move(arena)),
        wakeup_(std::move(wakeup)),
        options_(std::move(options)) {}

  Result<void> wait() const {
    pollfd fds[2] = {{channel_.get(), POLLIN, 0}, {wakeup_.fd(), POLLIN, 0}};
    auto const tick = rhythm_.wait(*activity_).count();
    if (::poll(fds, 2, static_cast<int>(tick)) < 0 && errno != EINTR)
      return fail_errno(errno, "poll");
    return {};
  }

  Result<void> begin(nbd::EngineRequest const& request, ThreadPool& workers) {
    auto const room = arena_.bytes().size();
    if (request.length > room || request.place > room - request.length) {
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
      error = n ? nbd::short_read(request.offset, request.length, *n) : n.error();
      if (!*ends_ && options_.on_read_error) {
        options_.on_read_error(request.offset, request.length, error);
      }
    } catch (std::bad_alloc const&) {
      error.code = make_error_code(std::errc::not_enough_memory);
    } catch (std::exception const&) {  // the worker is shared: it must live on
      error.code = make_error_code(std::errc::io_error);
    }
    if (*ends_) return activity_->end();
    answer(request, nbd::to_errno(error.code));
  }

  void answer(nbd::EngineRequest const& request, nbd::Errno error) const noexcept {
    activity_->end();
    nbd::EngineAnswer const message{request.id, static_cast<std::uint32_t>(error)};
    // After the relay's death there is no receiver.
    while (::send(channel_.get(), &message, sizeof message, MSG_NOSIGNAL) < 0 && errno == EINTR) {}
  }

  Source source_;
  UniqueFd channel_;
  SharedMemory arena_;
  nbd::Wakeup wakeup_;
  NbdEngineOptions options_;
  TickRhythm rhythm_;
  std::unique_ptr<Activity<>> activity_ = std::make_unique<Activity<>>();
  std::unique_ptr<std::atomic<bool>> ends_ = std::make_unique<std::atomic<bool>>(false);
};

}  // namespace erofs_oci
