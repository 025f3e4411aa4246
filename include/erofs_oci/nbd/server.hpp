// SPDX-License-Identifier: Apache-2.0
/// @file
/// NbdServer: a source as a block device, or for network clients.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/core/thread_pool.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/engine.hpp>
#include <erofs_oci/nbd/relay.hpp>
#include <erofs_oci/nbd/session.hpp>
#include <erofs_oci/nbd/wakeup.hpp>
#include <erofs_oci/posix/wait.hpp>

namespace erofs_oci {

/// How NbdServer serves.
struct NbdServerOptions {
  std::string name{};         ///< of the export
  std::string description{};  ///< of the export, for people
  /// First byte of the zeros behind the source's own bytes (Padded). Default: none.
  std::uint64_t zeros_from = Export{}.zeros_from;
  std::uint32_t preferred_block = Export{}.preferred_block;  ///< bytes; see Export
  /// Threads that read the source. A source that waits for a peer ties one up for each read, so
  /// this is how many reads are in flight. 0: 2 + the number of processors.
  std::size_t workers = 0;
  std::size_t max_sessions = 64;  ///< more connections are closed at once; not 0
  /// A client that has sent nothing for so long makes room for one that would be too many.
  std::chrono::milliseconds idle_after{60'000};
  SessionLimits limits{};  ///< of each session
  /// Called for each failed read, from any thread, several at once.
  OnReadError on_read_error{};
  /// Called for each connection that ended in an error, from any thread, several at once.
  std::function<void(Error const& error)> on_session_error{};
};

/// Serves one source on all the sockets that `Connect` makes. A device of the kernel is served by
/// NbdRelay and NbdEngine, as a mount that outlives its workers is, but with the engine in a thread
/// of this process. Clients that connect, negotiate and may want structured replies are served by
/// an NbdSession each.
///
/// @par Thread safety
/// run() once, on one thread; connect() as `Connect` says.
template <RandomAccessSource Source, NbdConnect Connect>
class NbdServer {
 public:
  /// Owns all three.
  NbdServer(Source source, Connect connect, NbdServerOptions options = {})
      : source_(std::move(source)), connect_(std::move(connect)), options_(std::move(options)) {
    export_.name = options_.name;
    export_.description = options_.description;
    export_.size = source_.size();
    export_.zeros_from = options_.zeros_from;
    export_.preferred_block = options_.preferred_block;
  }

  NbdServer(NbdServer const&) = delete;
  NbdServer& operator=(NbdServer const&) = delete;
  ~NbdServer() = default;

  /// What clients see.
  [[nodiscard]] Export const& served() const noexcept { return export_; }

  /// The source.
  [[nodiscard]] Source const& source() const noexcept { return source_; }

  /// Where the sockets come from: its address or device.
  [[nodiscard]] Connect& connect() noexcept { return connect_; }

  /// Serves until the device is disconnected or `stop` is asked for. A device that still lives then
  /// is disconnected; requests in flight are answered first, those of clients with an error if they
  /// had not begun.
  /// @param ready  called once, on this thread, when clients can be served; not after an error
  /// @error{as Connect::attach, no socket could be made}
  /// @error{as NbdRelay and NbdEngine, a device could not be served; it is disconnected}
  [[nodiscard]] Result<void> run(
      std::stop_token stop = {}, FunctionRef<void(Connect&)> ready = [](Connect&) {}) {
    if constexpr (Connect::listens) {
      return serve_clients(std::move(stop), ready);
    } else {
      return serve_device(std::move(stop), ready);
    }
  }

 private:
  // --- a device ----------------------------------------------------------------------------------

  /// The source, for an engine, which owns what it reads.
  struct Borrowed {
    Source const* source;

    [[nodiscard]] std::uint64_t size() const noexcept { return source->size(); }
    [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset,
                                              std::span<std::byte> out) const {
      return source->read_at(offset, out);
    }
  };

  Result<void> serve_device(std::stop_token stop, FunctionRef<void(Connect&)> ready) {
    EROFS_OCI_TRY_ASSIGN(auto sockets, connect_.attach(export_, stop));
    if (sockets.empty()) return {};
    auto const ended = relay(std::move(sockets), std::move(stop), ready);
    if (!ended || !*ended) connect_.detach();
    if (!ended) return fail(ended.error());
    return {};
  }

  /// @return whether the kernel has ended the connection
  Result<bool> relay(std::vector<UniqueFd> sockets, std::stop_token stop,
                     FunctionRef<void(Connect&)> ready) {
    EROFS_OCI_TRY_ASSIGN(auto relay, NbdRelay::make(export_, std::move(sockets),
                                                    {.requests = options_.limits.requests}));
    EROFS_OCI_TRY_ASSIGN(auto added, relay.add_engine());
    EROFS_OCI_TRY_ASSIGN(
        auto engine,
        NbdEngine<Borrowed>::open(
            {&source_}, std::move(added.second),
            {.workers = options_.workers, .on_read_error = options_.on_read_error, .on_tick = {}}));
    EROFS_OCI_TRY_ASSIGN(auto const wakeup, nbd::Wakeup::open());
    std::stop_callback const wake(stop, [&] { wakeup.notify(); });
    std::atomic<bool> engine_failed{false};
    std::jthread const thread([&](std::stop_token engine_stop) {
      auto const ok = without_throwing([&] { return engine.run(std::move(engine_stop)); });
      if (ok) return;
      report(ok.error());
      engine_failed = true;
      wakeup.notify();
    });
    relay.activate(added.first);
    ready(connect_);
    while (!relay.ended() && !engine_failed) {
      if (stop.stop_requested()) relay.pause();
      if (relay.is_idle()) break;
      std::vector<pollfd> fds{{stop.stop_requested() ? -1 : wakeup.fd(), POLLIN, 0}};
      relay.watch(fds);
      EROFS_OCI_TRY(poll_until(fds, std::chrono::steady_clock::time_point::max()));
      relay.act(std::span(fds).subspan(1));
    }
    relay.close_engines();
    if (!relay.complaint().empty()) report(make_error(Errc::protocol, relay.complaint()));
    return relay.ended().has_value();
  }

  // --- clients -----------------------------------------------------------------------------------

  Result<void> serve_clients(std::stop_token stop, FunctionRef<void(Connect&)> ready) {
    auto const cores = std::max(std::thread::hardware_concurrency(), 1U);
    auto const threads = options_.workers != 0 ? options_.workers : std::size_t{2} + cores;
    // Room for all that the sessions may have in flight: none of them waits to queue a read.
    ThreadPool workers(threads, std::max<std::size_t>(options_.max_sessions, 1) *
                                    std::max<std::size_t>(options_.limits.requests, 1));
    Sessions sessions;
    auto const result = attach_all(stop, ready, workers, sessions);
    if (result) wait_all(stop, sessions);
    if (live(sessions) > 0) connect_.detach();
    return result;  // ~Sessions stops and joins what is left
  }

  struct Slot {
    bool finished = false;
    bool leaving = false;  // asked to end, to make room
    std::atomic<std::chrono::steady_clock::rep> heard{
        std::chrono::steady_clock::now().time_since_epoch().count()};
    std::jthread thread{};  // last: its end uses the rest
  };

  struct Sessions {
    nbd::BufferPool buffers;
    std::mutex mutex;
    std::condition_variable_any changed;
    std::size_t live = 0;
    std::list<Slot> slots;  // last: destroyed first; stops all at once, then joins one by one

    ~Sessions() {
      for (auto& slot : slots) slot.thread.request_stop();
    }
  };

  Result<void> attach_all(std::stop_token const& stop, FunctionRef<void(Connect&)> ready,
                          ThreadPool& workers, Sessions& sessions) {
    ready(connect_);
    for (;;) {
      EROFS_OCI_TRY_ASSIGN(auto sockets, connect_.attach(export_, stop));
      if (sockets.empty()) return {};
      reap(sessions);
      for (auto& socket : sockets) start(std::move(socket), workers, sessions);
    }
  }

  void start(UniqueFd socket, ThreadPool& workers, Sessions& sessions) {
    std::lock_guard const lock(sessions.mutex);
    if (sessions.live >= std::max<std::size_t>(options_.max_sessions, 1) && !make_room(sessions)) {
      return report(Error{make_error_code(std::errc::connection_refused),
                          "nbd: there are " + std::to_string(sessions.live) +
                              " connections already, as many as allowed"});
    }
    auto& slot = sessions.slots.emplace_back();
    try {
      slot.thread = std::jthread(
          [this, &slot, &workers, &sessions, fd = std::move(socket)](std::stop_token stop) mutable {
            serve(fd.get(), std::move(stop), workers, sessions.buffers, slot.heard);
            fd.reset();
            std::lock_guard const inner(sessions.mutex);
            slot.finished = true;
            --sessions.live;
            sessions.changed.notify_all();
          });
      ++sessions.live;
    } catch (std::system_error const& error) {  // no thread: the client is turned away
      sessions.slots.pop_back();
      report(Error{error.code(), "nbd: a thread for a connection"});
    }
  }

  /// Asks the client to leave that has been silent for longest, if that is long; yields whether
  /// there is one. With the sessions' lock.
  [[nodiscard]] bool make_room(Sessions& sessions) const {
    Slot* idlest = nullptr;
    for (auto& slot : sessions.slots) {
      if (slot.finished || slot.leaving) continue;
      if (idlest == nullptr || slot.heard < idlest->heard) idlest = &slot;
    }
    auto const long_ago = std::chrono::steady_clock::now() - options_.idle_after;
    if (idlest == nullptr || idlest->heard > long_ago.time_since_epoch().count()) return false;
    idlest->leaving = true;
    idlest->thread.request_stop();
    return true;
  }

  using Heard = std::atomic<std::chrono::steady_clock::rep>;

  /// On a session's own thread, from the handshake to the end.
  void serve(int fd, std::stop_token stop, ThreadPool& workers, nbd::BufferPool& buffers,
             Heard& heard) {
    try {
      auto const result = serve_socket(fd, std::move(stop), workers, buffers, heard);
      if (!result) report(result.error());
    } catch (std::bad_alloc const&) {
      report(Error{make_error_code(std::errc::not_enough_memory), {}});
    }
  }

  Result<void> serve_socket(int fd, std::stop_token stop, ThreadPool& workers,
                            nbd::BufferPool& buffers, Heard& heard) {
    EROFS_OCI_TRY_ASSIGN(auto const negotiated, connect_.negotiate(fd, export_, stop));
    if (!negotiated) return {};
    EROFS_OCI_TRY_ASSIGN(auto wakeup, nbd::Wakeup::open());
    SessionContext const context{workers, buffers, options_.on_read_error, &heard};
    NbdSession session(fd, source_, export_, context, std::move(wakeup), *negotiated,
                       options_.limits);
    EROFS_OCI_TRY(session.run(std::move(stop)));
    return {};
  }

  /// Joins the threads that are done.
  static void reap(Sessions& sessions) {
    std::list<Slot> done;  // destroyed, and so joined, without the lock
    std::lock_guard const lock(sessions.mutex);
    for (auto slot = sessions.slots.begin(); slot != sessions.slots.end();) {
      auto const next = std::next(slot);
      if (slot->finished) done.splice(done.end(), sessions.slots, slot);
      slot = next;
    }
  }

  static void wait_all(std::stop_token const& stop, Sessions& sessions) {
    std::unique_lock lock(sessions.mutex);
    // The caller checks whether all sessions ended or `stop` was requested.
    static_cast<void>(sessions.changed.wait(lock, stop, [&] { return sessions.live == 0; }));
  }

  [[nodiscard]] static std::size_t live(Sessions& sessions) {
    std::lock_guard const lock(sessions.mutex);
    return sessions.live;
  }

  void report(Error const& error) const {
    if (options_.on_session_error) options_.on_session_error(error);
  }

  Source source_;
  Connect connect_;
  NbdServerOptions options_;
  Export export_{};
};

}  // namespace erofs_oci
