// SPDX-License-Identifier: Apache-2.0
/// @file
/// Supervision: decides when to start a daemon, which is the worker, when to wait, and when
/// to give up. No I/O.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/recovery/process.hpp>

namespace erofs_oci {

/// How long a supervisor waits, and how often it tries.
struct SupervisionOptions {
  /// From a start to the sign that the daemon has answered a read. Default: 60 s.
  std::chrono::milliseconds start_within{60'000};
  /// From that sign to the result of comparing the known span. Default: 30 s.
  std::chrono::milliseconds verify_within{30'000};
  /// A serving daemon that has given no sign for so long hangs and is killed, without an
  /// examination. A false alarm costs a restart, so several heartbeats must fit in. Default: 5 s.
  std::chrono::milliseconds hung_after{5'000};
  /// A daemon with work to do that has given no sign for so long is examined. Default: 50 ms.
  std::chrono::milliseconds suspect_after{50};
  /// The same for a daemon that has nothing to do. Default: 5 s, which is when it is killed.
  std::chrono::milliseconds suspect_idle_after{5'000};
  std::chrono::milliseconds look_again{20};  ///< from one examination to the next
  /// If the supervisor notices a deadline this late, it was suspended itself, as when the whole
  /// container is paused. It then counts the time without a sign anew. Default: 500 ms.
  std::chrono::milliseconds overslept_by{500};
  /// From being asked to stop to being killed. Default: 10 s.
  std::chrono::milliseconds stop_within{10'000};
  /// Pause before the second restart in a row; the first has none, and each further one twice the
  /// pause of the one before. Default: 100 ms.
  std::chrono::milliseconds first_pause{100};
  std::chrono::milliseconds most_pause{5'000};  ///< upper limit of the doubled pause
  /// A daemon that has served for so long resets the count of failures. Default: 1 s.
  std::chrono::milliseconds healthy_after{1'000};
  unsigned most_failures = 50;  ///< in a row; one more and the supervisor gives up
  /// The supervisor gives up after so long without service: the kernel has failed the device by
  /// then. Default: 300 s.
  std::chrono::milliseconds give_up_after{300'000};
  /// The exit status of a daemon for which no restart helps, for example because a file was
  /// replaced. Default: 78, EX_CONFIG of sysexits.h.
  int final_status = 78;
};

/// The state of a daemon.
enum class SupervisionState : std::uint8_t {
  idle,       ///< nothing has begun
  starting,   ///< a start was decided; its result is not known yet
  opening,    ///< a daemon lives, and has not answered a read yet
  verifying,  ///< it has answered; the known span is being compared
  serving,    ///< the daemon serves
  pausing,    ///< none lives; the next start comes later
  stopping,   ///< it was asked to end
  killing,    ///< it was killed, and has not gone yet
  done,       ///< ended on purpose
  given_up,   ///< ended without service
};

/// What is to be done now.
enum class Decision : std::uint8_t {
  nothing,    ///< wait for the next event, or for the deadline
  start,      ///< start a daemon
  pause,      ///< wait for the deadline
  verify,     ///< read the known span through the device and compare it
  terminate,  ///< ask the daemon to end
  examine,    ///< examine the daemon, which gives no sign
  kill,       ///< end the daemon
  done,       ///< nothing is left to do
  give_up,    ///< start no more daemons; reason() has the cause
};

/// The result of comparing the known span.
enum class Verdict : std::uint8_t {
  same,       ///< the bytes that the device had before
  different,  ///< other bytes: neither this daemon nor a next one may serve
  unknown,    ///< they could not be read
};

/// The state of one daemon's supervision. Each event yields one decision, and the caller carries it
/// out before the next event. There is never more than one daemon: a start is decided only when
/// none lives. Events that make no sense in a state change nothing.
///
/// @par Thread safety
/// None: one thread at a time.
template <Clock Time = SteadyClock>
class Supervision {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit Supervision(SupervisionOptions options = {}, Time time = {})
      : options_(options), time_(std::move(time)) {}

  [[nodiscard]] SupervisionState state() const noexcept { return state_; }

  /// When to call expired(); empty if there is no deadline.
  [[nodiscard]] std::optional<TimePoint> deadline() const noexcept { return deadline_; }

  /// Failures since the last good service.
  [[nodiscard]] unsigned failures() const noexcept { return failures_; }

  /// Why the last daemon ended or was ended; empty if none has.
  [[nodiscard]] std::string const& reason() const noexcept { return reason_; }

  /// Whether a daemon may live.
  [[nodiscard]] bool has_daemon() const noexcept {
    using enum SupervisionState;
    return state_ == opening || state_ == verifying || state_ == serving || state_ == stopping ||
           state_ == killing;
  }

  /// @name Events
  /// @{

  /// Begins, with no daemon.
  [[nodiscard]] Decision begin() {
    if (state_ != SupervisionState::idle) return Decision::nothing;
    last_good_ = time_.now();
    return start();
  }

  /// Begins with a daemon that serves already, such as the first one of a mount.
  [[nodiscard]] Decision adopt() {
    if (state_ != SupervisionState::idle) return Decision::nothing;
    return serve();
  }

  /// The start has made a process.
  [[nodiscard]] Decision started() {
    if (state_ != SupervisionState::starting) return Decision::nothing;
    if (stop_asked_) return terminate();
    enter(SupervisionState::opening, options_.start_within);
    return Decision::nothing;
  }

  /// The start has failed.
  [[nodiscard]] Decision start_failed(std::string why) {
    if (state_ != SupervisionState::starting) return Decision::nothing;
    reason_ = "start: " + std::move(why);
    if (stop_asked_) return end(SupervisionState::done);
    return fail_once();
  }

  /// The daemon has given the sign that it has answered a read.
  [[nodiscard]] Decision answered() {
    if (state_ != SupervisionState::opening) return heartbeat();
    enter(SupervisionState::verifying, options_.verify_within);
    return Decision::verify;
  }

  /// The known span was compared.
  [[nodiscard]] Decision verified(Verdict verdict) {
    if (state_ != SupervisionState::verifying) return Decision::nothing;
    if (verdict == Verdict::same) return serve();
    if (verdict == Verdict::unknown) return kill("the known span cannot be read");
    hopeless_ = true;
    return kill("other bytes are served than before");
  }

  /// The daemon has given a sign.
  /// @param busy  it is at work, and will give the next sign soon
  [[nodiscard]] Decision heartbeat(bool busy = false) {
    if (state_ != SupervisionState::serving) return Decision::nothing;
    last_good_ = time_.now();
    busy_ = busy;
    expect_sign();
    return Decision::nothing;
  }

  /// Whether the daemon has requests to answer. While it has, it counts as busy, also without a
  /// sign of its own.
  void asked(bool something) {
    if (something == asked_since_.has_value()) return;
    asked_since_ = something ? std::optional(time_.now()) : std::nullopt;
    if (state_ == SupervisionState::serving) expect_sign();
  }

  /// The daemon was examined.
  /// @param why  the reason if the daemon hangs; else empty
  [[nodiscard]] Decision examined(std::optional<std::string> why) {
    if (state_ != SupervisionState::serving || !why) return Decision::nothing;
    return kill("hangs: " + *std::move(why));
  }

  /// The daemon has given the sign that its device is gone, so its exit is no failure.
  [[nodiscard]] Decision finished() {
    if (has_daemon()) finished_ = true;
    return Decision::nothing;
  }

  /// The daemon has ended.
  [[nodiscard]] Decision died(ProcessExit const& exit) {
    if (!has_daemon()) return Decision::nothing;
    auto const was = state_;
    if (was != SupervisionState::killing) reason_ = exit.to_string();
    if (was == SupervisionState::serving) last_good_ = time_.now();
    // A daemon that exits with status 0 before it has served found that another one serves its
    // device.
    auto const on_purpose = finished_ || (was == SupervisionState::serving && exit.status == 0);
    if (hopeless_) return end(SupervisionState::given_up);
    if (on_purpose || stop_asked_) return end(SupervisionState::done);
    if (was != SupervisionState::killing && exit.status == options_.final_status) {
      return end(SupervisionState::given_up);
    }
    return fail_once();
  }

  /// A user wants the mount to end.
  [[nodiscard]] Decision stop_asked() {
    using enum SupervisionState;
    if (state_ == done || state_ == given_up) return Decision::nothing;
    stop_asked_ = true;
    if (state_ == idle || state_ == pausing) return end(done);
    if (state_ == opening || state_ == verifying || state_ == serving) return terminate();
    return Decision::nothing;  // started(), start_failed() or died() goes on
  }

  /// The deadline has passed; without effect if it has not.
  [[nodiscard]] Decision expired() {
    using enum SupervisionState;
    if (!deadline_ || time_.now() < *deadline_) return Decision::nothing;
    switch (state_) {
      case pausing: return start();
      case opening: return kill("no read answered in time");
      case verifying: return kill("the known span was not read in time");
      case serving: return doubt();
      case stopping: return kill("did not stop in time");
      case idle:
      case starting:
      case killing:
      case done:
      case given_up: break;
    }
    return Decision::nothing;
  }
  /// @}

 private:
  void enter(SupervisionState state, std::chrono::milliseconds within) {
    state_ = state;
    deadline_ = time_.now() + within;
  }

  Decision start() {
    state_ = SupervisionState::starting;
    deadline_.reset();
    return Decision::start;
  }

  Decision serve() {
    state_ = SupervisionState::serving;
    last_good_ = time_.now();
    serving_since_ = last_good_;
    busy_ = false;
    expect_sign();
    return Decision::nothing;
  }

  // From when the time without a sign counts.
  [[nodiscard]] TimePoint silent_since() const { return std::max(last_good_, woke_); }

  void expect_sign() {
    deadline_ = silent_since() + std::min(options_.hung_after, options_.suspect_idle_after);
    if (!busy_ && !asked_since_) return;
    auto const since = std::max(silent_since(), asked_since_.value_or(last_good_));
    deadline_ = std::min(*deadline_, since + options_.suspect_after);
  }

  // The daemon serves, and has given no sign in time.
  Decision doubt() {
    auto const now = time_.now();
    if (now - *deadline_ >= options_.overslept_by) woke_ = now;
    auto const end = silent_since() + options_.hung_after;
    if (now >= end) return kill("no sign of life");
    deadline_ = std::min(end, now + options_.look_again);
    return Decision::examine;
  }

  Decision terminate() {
    enter(SupervisionState::stopping, options_.stop_within);
    return Decision::terminate;
  }

  Decision kill(std::string why) {
    reason_ = std::move(why);
    state_ = SupervisionState::killing;
    deadline_.reset();  // after SIGKILL only the daemon's end matters
    return Decision::kill;
  }

  Decision end(SupervisionState state) {
    state_ = state;
    deadline_.reset();
    return state == SupervisionState::done ? Decision::done : Decision::give_up;
  }

  // One more daemon has ended that should not have.
  Decision fail_once() {
    if (serving_since_ && last_good_ - *serving_since_ >= options_.healthy_after) failures_ = 0;
    serving_since_.reset();
    ++failures_;
    if (failures_ > options_.most_failures) return end(SupervisionState::given_up);
    if (time_.now() - last_good_ > options_.give_up_after) return end(SupervisionState::given_up);
    if (failures_ == 1) return start();
    enter(SupervisionState::pausing, pause());
    return Decision::pause;
  }

  [[nodiscard]] std::chrono::milliseconds pause() const {
    auto pause = std::min(options_.first_pause, options_.most_pause);
    for (unsigned i = 2; i < failures_ && pause < options_.most_pause; ++i) {
      pause = std::min(2 * pause, options_.most_pause);
    }
    return pause;
  }

  SupervisionOptions options_;
  [[no_unique_address]] Time time_;
  SupervisionState state_ = SupervisionState::idle;
  std::optional<TimePoint> deadline_{};
  std::optional<TimePoint> serving_since_{};  // of the present daemon, once it has served
  TimePoint last_good_{};                     // when a daemon last served
  TimePoint woke_{};  // when the supervisor was last found to have been suspended
  unsigned failures_ = 0;
  bool hopeless_ = false;  // no daemon will do better than the present one
  bool finished_ = false;  // the present daemon has said so: it is the last
  bool stop_asked_ = false;
  bool busy_ = false;  // the present daemon has said so
  std::optional<TimePoint> asked_since_{};
  std::string reason_{};
};

}  // namespace erofs_oci
