// SPDX-License-Identifier: Apache-2.0
/// @file
/// Supervision: when to start a daemon again, when to wait, and when to give up. Decides; does
/// nothing.
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

/// How patient a supervisor is.
struct SupervisionOptions {
  /// From a start to the daemon's word that it has answered. Default: 60 s.
  std::chrono::milliseconds start_within{60'000};
  /// From there to the known span. Default: 30 s.
  std::chrono::milliseconds verify_within{30'000};
  /// A serving daemon that has not given a sign for so long hangs, and is killed, whatever it looks
  /// like. A false alarm costs a restart, so several heartbeats must fit in. Default: 5 s.
  std::chrono::milliseconds hung_after{5'000};
  /// A daemon with work to do that has not given a sign for so long is looked at, to see whether it
  /// hangs. Default: 50 ms.
  std::chrono::milliseconds suspect_after{50};
  /// The same for a daemon that has nothing to do. Default: 5 s, which is when it is killed.
  std::chrono::milliseconds suspect_idle_after{5'000};
  std::chrono::milliseconds look_again{20};  ///< from one such look to the next
  /// Whoever sees a deadline so late has not run himself: as after a pause of the whole container.
  /// A daemon's silence counts from then on only. Default: 500 ms.
  std::chrono::milliseconds overslept_by{500};
  /// From being asked to stop to being killed. Default: 10 s.
  std::chrono::milliseconds stop_within{10'000};
  /// The first restart after good service comes at once; the second in a row after this pause, and
  /// each next one after twice the pause. Default: 100 ms.
  std::chrono::milliseconds first_pause{100};
  std::chrono::milliseconds most_pause{5'000};  ///< the longest that doubling leads to
  /// Service that lasts so long makes up for all failures before it. Default: 1 s.
  std::chrono::milliseconds healthy_after{1'000};
  unsigned most_failures = 50;  ///< in a row; one more and the supervisor gives up
  /// No service for so long: the kernel has failed the device by now. Default: 300 s.
  std::chrono::milliseconds give_up_after{300'000};
  /// An exit status that says that no restart would help, as a replaced file does. Default: 78,
  /// which sysexits.h calls EX_CONFIG.
  int final_status = 78;
};

/// Where a daemon is in its life.
enum class SupervisionState : std::uint8_t {
  idle,       ///< nothing has begun
  starting,   ///< a start was decided, and has neither worked nor failed yet
  opening,    ///< a daemon lives, and has not answered a read yet
  verifying,  ///< it has answered; the known span is being compared
  serving,    ///< all is well
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
  examine,    ///< look at the daemon: it gives no sign
  kill,       ///< end the daemon
  done,       ///< nothing is left to do
  give_up,    ///< stop trying; reason() says why
};

/// What a comparison of the known span has shown.
enum class Verdict : std::uint8_t {
  same,       ///< the bytes that the device had before
  different,  ///< other bytes: this daemon must not serve, nor will the next one do better
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

  /// When expired() is due; empty if only an event goes on.
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

  /// Begins with a daemon that serves already, as a mount does that has waited for its first.
  [[nodiscard]] Decision adopt() {
    if (state_ != SupervisionState::idle) return Decision::nothing;
    return serve();
  }

  /// The start that was decided has made a process.
  [[nodiscard]] Decision started() {
    if (state_ != SupervisionState::starting) return Decision::nothing;
    if (stop_asked_) return terminate();
    enter(SupervisionState::opening, options_.start_within);
    return Decision::nothing;
  }

  /// The start that was decided has made no process.
  [[nodiscard]] Decision start_failed(std::string why) {
    if (state_ != SupervisionState::starting) return Decision::nothing;
    reason_ = "start: " + std::move(why);
    if (stop_asked_) return end(SupervisionState::done);
    return fail_once();
  }

  /// The daemon says that it has answered a read.
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

  /// The daemon gives a sign of life.
  /// @param busy  it is at work, and will give the next sign soon
  [[nodiscard]] Decision heartbeat(bool busy = false) {
    if (state_ != SupervisionState::serving) return Decision::nothing;
    last_good_ = time_.now();
    busy_ = busy;
    expect_sign();
    return Decision::nothing;
  }

  /// There is something that the daemon has to do, or no more: as long as there is, it is at work
  /// whether it has said so or not.
  void asked(bool something) {
    if (something == asked_since_.has_value()) return;
    asked_since_ = something ? std::optional(time_.now()) : std::nullopt;
    if (state_ == SupervisionState::serving) expect_sign();
  }

  /// The daemon was looked at.
  /// @param why  it hangs; empty if it may be well
  [[nodiscard]] Decision examined(std::optional<std::string> why) {
    if (state_ != SupervisionState::serving || !why) return Decision::nothing;
    return kill("hangs: " + *std::move(why));
  }

  /// The daemon says that its device is gone, so that its end will be no failure.
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
    // Status 0 from one that has never served is the end of file of a device that has another.
    auto const on_purpose = finished_ || (was == SupervisionState::serving && exit.status == 0);
    if (hopeless_) return end(SupervisionState::given_up);
    if (on_purpose || stop_asked_) return end(SupervisionState::done);
    if (was != SupervisionState::killing && exit.status == options_.final_status) {
      return end(SupervisionState::given_up);
    }
    return fail_once();
  }

  /// Somebody wants the daemon to end, for good.
  [[nodiscard]] Decision stop_asked() {
    using enum SupervisionState;
    if (state_ == done || state_ == given_up) return Decision::nothing;
    stop_asked_ = true;
    if (state_ == idle || state_ == pausing) return end(done);
    if (state_ == opening || state_ == verifying || state_ == serving) return terminate();
    return Decision::nothing;  // started(), start_failed() or died() goes on
  }

  /// The deadline has passed. Without effect before.
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

  // When its silence begins to count.
  [[nodiscard]] TimePoint silent_since() const { return std::max(last_good_, woke_); }

  void expect_sign() {
    deadline_ = silent_since() + std::min(options_.hung_after, options_.suspect_idle_after);
    if (!busy_ && !asked_since_) return;
    auto const since = std::max(silent_since(), asked_since_.value_or(last_good_));
    deadline_ = std::min(*deadline_, since + options_.suspect_after);
  }

  // It serves, and no sign has come in time.
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
    deadline_.reset();  // SIGKILL cannot be outdone: only its end goes on
    return Decision::kill;
  }

  Decision end(SupervisionState state) {
    state_ = state;
    deadline_.reset();
    return state == SupervisionState::done ? Decision::done : Decision::give_up;
  }

  // One more daemon is gone that should not be.
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
  TimePoint last_good_{};                     // when service was last known to be good
  TimePoint woke_{};                          // when this machine was last found to have slept
  unsigned failures_ = 0;
  bool hopeless_ = false;  // no daemon will do better than the present one
  bool finished_ = false;  // the present daemon has said so: it is the last
  bool stop_asked_ = false;
  bool busy_ = false;  // the present daemon has said so
  std::optional<TimePoint> asked_since_{};
  std::string reason_{};
};

}  // namespace erofs_oci
