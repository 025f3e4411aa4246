// SPDX-License-Identifier: Apache-2.0
/// @file
/// Supervisor: carries out what Supervision decides, with pidfds and heartbeats. Its daemon
/// is the worker.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/types.h>
#include <unistd.h>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/recovery/hang_check.hpp>
#include <erofs_oci/recovery/heartbeat.hpp>
#include <erofs_oci/recovery/process.hpp>
#include <erofs_oci/recovery/supervision.hpp>

namespace erofs_oci {

/// A daemon that has just been started.
struct SupervisedDaemon {
  pid_t pid = 0;         ///< a child of this process
  UniqueFd heartbeat{};  ///< the supervisor's end of Heartbeat::pair()
};

/// The parts of supervising that depend on the daemon; each may be empty except `start`.
struct SupervisorHooks {
  /// Starts the next daemon, by fork(2) or by fork and exec(2), and returns at once. Of the
  /// heartbeat's two ends the child keeps only its own.
  std::function<Result<SupervisedDaemon>()> start{};
  /// Called with the way in which a daemon has ended, before the next start; or empty.
  std::function<void(ProcessExit const&)> ended{};
  /// Starts to read the known span through the device, and returns at once: the read may block as
  /// long as the device does, so it needs a process or thread of its own. The descriptor gets one
  /// byte: '1' for the same bytes, '0' for others; its end without one means that they could not be
  /// read. Empty: the span is not checked.
  std::function<Result<UniqueFd>()> verify{};
  /// Whether the daemon has requests to answer now; empty if only the daemon knows.
  std::function<bool()> asked{};
  /// Adds further descriptors to wait for, at each wait; or empty.
  std::function<void(std::vector<pollfd>&)> watch{};
  /// Called with the entries that watch() added and the results of poll(2), before the supervisor
  /// handles its own. Set together with watch().
  std::function<void(std::span<pollfd const>)> act{};
  /// Called with each decision except Decision::nothing after it was carried out; for logs.
  std::function<void(Decision, Supervision<> const&)> note{};
};

/// Keeps one daemon running. It notices a daemon's end at once, by its pidfd, and a hang with work
/// to do by HangCheck, within 100 ms on a machine that is not busy.
///
/// @par Thread safety
/// None: run() is the process's or a thread's only work.
class Supervisor {
 public:
  /// @param hooks  `start` must be set
  explicit Supervisor(SupervisorHooks hooks, SupervisionOptions options = {})
      : hooks_(std::move(hooks)), machine_(options) {}

  /// Blocks and supervises until the daemon ends on purpose or the supervisor gives up.
  /// @param stop   becomes readable when the daemon is to end, such as a signalfd(2); or -1
  /// @param first  a daemon that serves already; without one, the first is started here
  /// @return SupervisionState::done or given_up; reason() has the cause
  /// @error{an errno, as poll(2) and waitid(2); a daemon may be left behind}
  [[nodiscard]] Result<SupervisionState> run(int stop, std::optional<SupervisedDaemon> first = {}) {
    auto decision = Decision::nothing;
    if (first) {
      EROFS_OCI_TRY(adopt_daemon(*std::move(first)), "supervisor");
      static_cast<void>(machine_.adopt());  // decides nothing
    } else {
      decision = machine_.begin();
    }
    while (!is_over()) {
      EROFS_OCI_TRY(carry_out(decision), "supervisor");
      if (is_over()) break;
      EROFS_OCI_TRY_ASSIGN(decision, wait(stop), "supervisor");
    }
    note(decision);
    return machine_.state();
  }

  /// Why the last daemon ended, in words.
  [[nodiscard]] std::string const& reason() const noexcept { return machine_.reason(); }

 private:
  [[nodiscard]] bool is_over() const noexcept {
    return machine_.state() == SupervisionState::done ||
           machine_.state() == SupervisionState::given_up;
  }

  void note(Decision decision) const {
    if (decision != Decision::nothing && hooks_.note) hooks_.note(decision, machine_);
  }

  Result<void> adopt_daemon(SupervisedDaemon daemon) {
    EROFS_OCI_TRY_ASSIGN(pidfd_, open_pidfd(daemon.pid));
    pid_ = daemon.pid;
    heartbeat_ = std::move(daemon.heartbeat);
    hang_check_.reset();
    return {};
  }

  // A decision can lead to the next one at once.
  Result<void> carry_out(Decision decision) {
    while (decision != Decision::nothing && !is_over()) {
      auto const now = std::exchange(decision, Decision::nothing);
      if (now == Decision::start) decision = start();
      if (now == Decision::verify) decision = verify();
      if (now == Decision::examine) decision = examine();
      if (now == Decision::terminate || now == Decision::kill) {
        verdict_.reset();
        EROFS_OCI_TRY(send_signal(pidfd_, now == Decision::kill ? SIGKILL : SIGTERM));
      }
      note(now);
    }
    return {};
  }

  Decision start() {
    auto daemon = hooks_.start();
    if (!daemon) return machine_.start_failed(daemon.error().message());
    auto const pid = daemon->pid;
    auto ok = adopt_daemon(*std::move(daemon));
    if (ok) return machine_.started();
    end_child(pid);
    return machine_.start_failed(ok.error().message());
  }

  Decision verify() {
    if (!hooks_.verify) return machine_.verified(Verdict::same);
    auto begun = hooks_.verify();
    if (!begun) return machine_.verified(Verdict::unknown);
    verdict_ = *std::move(begun);
    return Decision::nothing;
  }

  // A process that cannot be examined is not taken for hung.
  Decision examine() {
    auto const view = view_process(pid_);
    return machine_.examined(view ? hang_check_.look(*view) : std::nullopt);
  }

  // Waits for one event. Handles a death last, so that earlier signs count.
  Result<Decision> wait(int stop) {
    std::vector<pollfd> fds{{heartbeat_.get(), POLLIN, 0},
                            {verdict_.get(), POLLIN, 0},
                            {pidfd_.get(), POLLIN, 0},
                            {stop_seen_ ? -1 : stop, POLLIN, 0}};
    auto const own = fds.size();
    if (hooks_.watch) hooks_.watch(fds);
    if (hooks_.asked) machine_.asked(hooks_.asked());
    while (::poll(fds.data(), fds.size(), patience()) < 0) {
      if (errno != EINTR) return fail_errno(errno, "poll");
    }
    if (hooks_.act) hooks_.act(std::span(fds).subspan(own));
    auto const ready = [&](std::size_t i) { return fds[i].fd >= 0 && fds[i].revents != 0; };
    if (ready(3)) {
      stop_seen_ = true;
      return machine_.stop_asked();
    }
    auto decision = ready(0) ? read_signs() : Decision::nothing;
    if (decision == Decision::nothing && ready(1)) decision = read_verdict();
    if (decision != Decision::nothing) return decision;
    if (ready(2)) return reap_daemon();
    return machine_.expired();
  }

  [[nodiscard]] int patience() const {
    auto const deadline = machine_.deadline();
    if (!deadline) return -1;
    auto const left =
        std::chrono::ceil<std::chrono::milliseconds>(*deadline - SteadyClock{}.now()).count();
    constexpr std::int64_t most = std::numeric_limits<int>::max();
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, most));
  }

  // Of many signs only the one that leads to a decision matters, and there is at most one.
  Decision read_signs() {
    std::array<char, 256> buffer;
    auto const signs = receive_signs(heartbeat_, buffer);
    if (!signs) {
      heartbeat_.reset();  // the pidfd or the deadline shows what this means
      return Decision::nothing;
    }
    hang_check_.reset();
    auto decision = Decision::nothing;
    for (auto const sign : *signs) {
      auto next = Decision::nothing;
      if (sign == Heartbeat::answered_sign) next = machine_.answered();
      if (sign == Heartbeat::beat_sign) next = machine_.heartbeat();
      if (sign == Heartbeat::busy_sign) next = machine_.heartbeat(true);
      if (sign == Heartbeat::finished_sign) next = machine_.finished();
      if (next != Decision::nothing) decision = next;
    }
    return decision;
  }

  Decision read_verdict() {
    char byte = 0;
    auto const n = ::read(verdict_.get(), &byte, 1);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return Decision::nothing;
    verdict_.reset();
    if (n != 1 || (byte != '0' && byte != '1')) return machine_.verified(Verdict::unknown);
    return machine_.verified(byte == '1' ? Verdict::same : Verdict::different);
  }

  Result<Decision> reap_daemon() {
    EROFS_OCI_TRY_ASSIGN(auto const exit, reap(pidfd_));
    if (!exit) return Decision::nothing;
    pidfd_.reset();
    heartbeat_.reset();
    verdict_.reset();
    if (hooks_.ended) hooks_.ended(*exit);
    return machine_.died(*exit);
  }

  SupervisorHooks hooks_;
  Supervision<> machine_;
  pid_t pid_ = 0;  // of the daemon; its own until it is reaped
  UniqueFd pidfd_{};
  UniqueFd heartbeat_{};
  UniqueFd verdict_{};
  HangCheck hang_check_{};
  bool stop_seen_ = false;
};

}  // namespace erofs_oci
