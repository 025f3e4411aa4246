// SPDX-License-Identifier: Apache-2.0
/// @file
/// FuseSession: the threads that answer the kernel's requests on one /dev/fuse.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <erofs_oci/core/activity.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/fuse/api.hpp>
#include <erofs_oci/fuse/inflight.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/posix/descriptor.hpp>

namespace erofs_oci {

/// Why a session ended.
enum class FuseEnd : std::uint8_t {
  unmounted,  ///< nothing is mounted on the connection any more
  stopped,    ///< `stop` was requested; the mount may still exist
};

/// Called from time to time with the requests in progress, and whether the next call comes soon
/// because there are some; see TickRhythm.
using OnFuseTick = std::function<void(Activity<> const& requests, bool busy)>;

/// Serves one FUSE connection with a number of threads.
///
/// The threads share one descriptor, without clones: a server's unanswered requests survive its
/// death if another process holds what share() yields, and the next server answers them. The kernel
/// would fail those of a clone at once.
///
/// @par Thread safety
/// run() once, on one thread; share() while it runs, from `ready` on.
class FuseSession {
 public:
  /// @param operations  libfuse's table; handlers are called on many threads at once, and must not
  ///                    throw
  /// @param user        what fuse_req_userdata() yields in them
  /// @param connection  from mount_fuse(); or shared by an earlier server, which is taken over then
  /// @param threads     1 to FuseInflight::most_slots; a connection that is taken over may allow
  ///                    fewer, but no less than 64
  /// @error{std::errc::not_enough_memory, libfuse could not begin}
  /// @error{Errc::protocol, `connection.inflight` is something else}
  /// @error{an errno, as epoll_create(2)\, eventfd(2)\, fcntl(2) and memfd_create(2)}
  [[nodiscard]] static Result<FuseSession> open(fuse_lowlevel_ops const& operations, void* user,
                                                FuseConnection connection, std::size_t threads);

  /// Blocks and serves until nothing is mounted any more or `stop` is requested.
  /// @param ready    called once, on this thread, when the kernel and we have agreed on how to
  ///                 talk, which the kernel may know a moment before; not at all if `stop` is
  ///                 asked for first
  /// @param on_stop  called on this thread when `stop` is asked for, while requests are still
  ///                 served: unmounts, or does nothing to leave the mount to another server
  /// @param on_tick  called on this thread in between: at least once a second, and within
  ///                 20 ms of a call that had `busy` set; or empty
  /// @param leave    once it is requested, no request is taken, and those that are under way stay
  ///                 with the connection for the next server, be they answered or not
  /// @error{Errc::protocol, a kernel that libfuse cannot talk to}
  /// @error{an errno, as read(2) of /dev/fuse}
  [[nodiscard]] Result<FuseEnd> run(std::stop_token stop, FunctionRef<void(FuseSession&)> ready,
                                    FunctionRef<void()> on_stop, OnFuseTick const& on_tick = {},
                                    std::stop_token leave = {});

  /// Requests that this session has answered with an error at its start, because earlier servers
  /// have crashed with them repeatedly.
  [[nodiscard]] std::size_t refused() const noexcept { return state_->refused; }

  /// What another server needs to take over this connection.
  /// @error{an errno, as fcntl(2)}
  [[nodiscard]] Result<FuseConnection> share() const;

 private:
  static constexpr std::size_t fewest_slots = 64;  // for a next server with more threads

  struct Destroy {
    void operator()(fuse_session* session) const noexcept { ::fuse_session_destroy(session); }
  };

  struct State {
    explicit State(FuseInflight slots) noexcept : inflight(std::move(slots)) {}

    FuseInflight inflight;
    FuseConnection connection;  // without what `inflight` is
    std::size_t threads = 1;
    std::stop_token leave;
    Activity<> activity;
    std::size_t refused = 0;
    UniqueFd wakeup;
    UniqueFd epoll;
    std::unique_ptr<fuse_session, Destroy> session;
    std::atomic<bool> dismissed = false;
    std::mutex mutex;  // guards what follows, and connection.opening
    std::condition_variable_any changed;
    bool agreed = false;
    bool ended = false;
    std::optional<Error> error;

    Result<void> open(fuse_lowlevel_ops const& operations, void* user) {
      auto const fd = connection.device.get();
      auto const flags = ::fcntl(fd, F_GETFL);
      if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        return fail_errno(errno, "/dev/fuse");
      }
      wakeup = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      if (!wakeup) return fail_errno(errno, "eventfd");
      epoll = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
      if (!epoll) return fail_errno(errno, "epoll");
      if (!watch(EPOLL_CTL_ADD, wakeup.get(), EPOLLIN) ||
          !watch(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT)) {
        return fail_errno(errno, "epoll");
      }
      EROFS_OCI_TRY_ASSIGN(auto theirs, duplicate(fd));  // libfuse closes it
      std::string name = "erofs_oci";
      std::array<char*, 2> words{name.data(), nullptr};
      fuse_args arguments{1, words.data(), 0};
      session.reset(::fuse_session_new(&arguments, &operations, sizeof operations, user));
      ::fuse_opt_free_args(&arguments);
      auto const path = "/dev/fd/" + std::to_string(theirs.get());
      if (!session || ::fuse_session_mount(session.get(), path.c_str()) != 0) {
        return fail(make_error_code(std::errc::not_enough_memory), "libfuse");
      }
      static_cast<void>(theirs.release());
      return {};
    }

    bool watch(int operation, int fd, std::uint32_t events) const noexcept {
      epoll_event event{};
      event.events = events;
      event.data.fd = fd;
      return ::epoll_ctl(epoll.get(), operation, fd, &event) == 0;
    }

    /// One thread: reads requests while there are any, else waits for its turn.
    ///
    /// A request wakes one thread only: EPOLLONESHOT takes the descriptor out of the wait until its
    /// thread has read, and then epoll looks by itself whether there is more to read.
    void work(std::size_t index) noexcept {
      inflight.touch(index);
      for (auto slot = index; slot < inflight.slots(); slot += threads) answer(slot);
      auto const slot = inflight.slot(index);
      auto const fd = connection.device.get();
      auto mine = false;
      while (!dismissed.load() && !leave.stop_requested()) {
        auto const n = ::read(fd, slot.data(), slot.size());
        auto const number = n < 0 ? errno : 0;
        if (mine) static_cast<void>(watch(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT));
        mine = false;
        if (n > 0) {
          answer(index);
        } else if (number == EAGAIN) {
          mine = wait();
        } else if (number == ENODEV || n == 0) {
          finish({});
          return;
        } else if (number != EINTR && number != ENOENT) {  // ENOENT: it was interrupted meanwhile
          finish(Error{std::error_code(number, std::system_category()), "read a request", {}});
          return;
        }
      }
    }

    /// Whether there is something to read, and this thread's to do so.
    bool wait() const noexcept {
      epoll_event event{};
      return ::epoll_wait(epoll.get(), &event, 1, -1) == 1 && event.data.fd != wakeup.get();
    }

    /// Carries out what is in a slot, if anything is.
    void answer(std::size_t index) noexcept {
      auto const request = inflight.request(index);
      if (request.empty()) return;
      activity.begin();
      process(request);
      // One that has been answered does no harm there: the kernel drops a second answer.
      if (!leave.stop_requested()) inflight.clear(index);
      activity.end();
    }

    void process(std::span<std::byte> request) noexcept {
      fuse_in_header header{};
      std::memcpy(&header, request.data(), std::min(request.size(), sizeof header));
      fuse_buf buffer{};
      buffer.size = request.size();
      buffer.mem = request.data();
      buffer.fd = -1;
      ::fuse_session_process_buf(session.get(), &buffer);
      if (header.opcode == FUSE_INIT) agree(request);
    }

    /// After the kernel's first request, which it sends alone: again only if versions differ.
    void agree(std::span<std::byte const> opening) noexcept {
      if (::fuse_session_exited(session.get()) != 0) {
        finish(Error{make_error_code(Errc::protocol), "the kernel's version of FUSE", {}});
        return;
      }
      std::lock_guard const lock(mutex);
      connection.opening = to_bytes(opening);
      agreed = true;
      changed.notify_all();
    }

    /// Passes the first request of the kernel, which another server got, to libfuse. That request
    /// is answered already, so the kernel drops libfuse's reply. Then answers requests that may
    /// have crashed that server alone, or refuses them.
    void take_over() noexcept {
      constexpr std::uint32_t suspect = 2;
      constexpr std::uint32_t most = 5;
      auto opening = connection.opening;
      process(opening);
      for (std::size_t i = 0; i < inflight.slots(); ++i) {
        auto const crashes = inflight.request(i).empty() ? 0 : inflight.crashes(i);
        if (crashes >= most) refuse(i);
        if (crashes >= suspect) answer(i);
      }
    }

    void refuse(std::size_t index) noexcept {
      fuse_in_header header{};
      std::memcpy(&header, inflight.request(index).data(), sizeof header);
      fuse_out_header const reply{sizeof reply, -EIO, header.unique};
      [[maybe_unused]] auto const n = ::write(connection.device.get(), &reply, sizeof reply);
      inflight.clear(index);
      ++refused;
    }

    /// Whether the session has ended, and not only `stop` was asked for.
    bool wait_for_end(std::unique_lock<std::mutex>& lock, std::stop_token const& stop,
                      OnFuseTick const& on_tick) {
      auto const is_over = [this] { return ended; };
      if (!on_tick) return changed.wait(lock, stop, is_over);
      TickRhythm rhythm;
      while (!stop.stop_requested()) {
        if (changed.wait_for(lock, stop, rhythm.wait(activity), is_over)) return true;
        lock.unlock();
        on_tick(activity, rhythm.look(activity));
        lock.lock();
      }
      return ended;
    }

    void finish(std::optional<Error> why) noexcept {
      {
        std::lock_guard const lock(mutex);
        if (!ended) error = std::move(why);
        ended = true;
        changed.notify_all();
      }
      dismiss();
    }

    /// Ends the threads once each has answered what it has.
    void dismiss() noexcept {
      dismissed.store(true);
      std::uint64_t const one = 1;
      [[maybe_unused]] auto const n = ::write(wakeup.get(), &one, sizeof one);
    }
  };

  explicit FuseSession(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}

  std::unique_ptr<State> state_;
};

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/fuse/detail/session_body.hpp>
#endif
