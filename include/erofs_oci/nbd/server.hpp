// SPDX-License-Identifier: Apache-2.0
/// @file
/// NbdServer: a source as a block device, or for network clients.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <new>
#include <optional>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/core/workers.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/session.hpp>

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
  SessionLimits limits{};         ///< of each session
  /// Called for each failed read, from any thread, several at once.
  OnReadError on_read_error{};
  /// Called for each connection that ended in an error, from any thread, several at once.
  std::function<void(Error const& error)> on_session_error{};
};

/// Serves one source on all the sockets that `Connect` makes.
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
  /// is disconnected; requests in flight are answered first, with an error if they had not begun.
  /// @param ready  called once, on this thread, when clients can be served; not after an error
  /// @error{as Connect::attach, no socket could be made}
  [[nodiscard]] Result<void> run(std::stop_token stop, FunctionRef<void(Connect&)> ready) {
    auto const cores = std::max(std::thread::hardware_concurrency(), 1U);
    auto const threads = options_.workers != 0 ? options_.workers : std::size_t{2} + cores;
    // Room for all that the sessions may have in flight: none of them waits to queue a read.
    Workers workers(threads, std::max<std::size_t>(options_.max_sessions, 1) *
                                 std::max<std::size_t>(options_.limits.requests, 1));
    Sessions sessions;
    auto const result = attach_all(stop, ready, workers, sessions);
    if (result) wait_all(stop, sessions);
    if (live(sessions) > 0) connect_.detach();
    return result;  // ~Sessions stops and joins what is left
  }

  /// The same without a callback.
  [[nodiscard]] Result<void> run(std::stop_token stop = {}) {
    return run(std::move(stop), [](Connect&) {});
  }

 private:
  struct Slot {
    bool finished = false;
    std::jthread thread{};  // last: its end uses the rest
  };

  struct Sessions {
    nbd::BufferPool buffers;
    std::mutex mutex;
    std::condition_variable_any changed;
    std::size_t live = 0;
    std::list<Slot> slots;  // last: destroyed first; stops all at once, then joins one by one

    Sessions() = default;
    Sessions(Sessions const&) = delete;
    Sessions& operator=(Sessions const&) = delete;
    ~Sessions() {
      for (auto& slot : slots) slot.thread.request_stop();
    }
  };

  Result<void> attach_all(std::stop_token const& stop, FunctionRef<void(Connect&)> ready,
                          Workers& workers, Sessions& sessions) {
    auto told = false;
    auto const tell = [&] {
      if (!std::exchange(told, true)) ready(connect_);
    };
    if (Connect::listens) tell();
    for (;;) {
      auto sockets = connect_.attach(export_, stop);
      if (!sockets) return fail(std::move(sockets).error());
      if (sockets->empty()) return {};
      reap(sessions);
      for (auto& socket : *sockets) start(std::move(socket), workers, sessions);
      tell();
    }
  }

  void start(UniqueFd socket, Workers& workers, Sessions& sessions) {
    std::lock_guard const lock(sessions.mutex);
    if (sessions.live >= std::max<std::size_t>(options_.max_sessions, 1)) {
      return report(Error{make_error_code(std::errc::connection_refused),
                          "nbd: there are " + std::to_string(sessions.live) +
                              " connections already, as many as allowed"});
    }
    auto& slot = sessions.slots.emplace_back();
    try {
      slot.thread = std::jthread(
          [this, &slot, &workers, &sessions, fd = std::move(socket)](std::stop_token stop) mutable {
            serve(fd.get(), std::move(stop), workers, sessions.buffers);
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

  /// On a session's own thread, from the handshake to the end.
  void serve(int fd, std::stop_token stop, Workers& workers, nbd::BufferPool& buffers) {
    try {
      auto const result = serve_socket(fd, std::move(stop), workers, buffers);
      if (!result) report(result.error());
    } catch (std::bad_alloc const&) {
      report(Error{make_error_code(std::errc::not_enough_memory), {}});
    }
  }

  Result<void> serve_socket(int fd, std::stop_token stop, Workers& workers,
                            nbd::BufferPool& buffers) {
    auto const negotiated = connect_.negotiate(fd, export_, stop);
    if (!negotiated) return fail(negotiated.error());
    if (!*negotiated) return {};
    auto wakeup = nbd::Wakeup::open();
    if (!wakeup) return fail(std::move(wakeup).error());
    SessionContext const context{workers, buffers, options_.on_read_error};
    NbdSession session(fd, source_, export_, context, *std::move(wakeup), **negotiated,
                       options_.limits);
    auto const end = session.run(std::move(stop));
    if (!end) return fail(end.error());
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
    // Whether all ended or `stop` came, the caller sees for itself.
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
