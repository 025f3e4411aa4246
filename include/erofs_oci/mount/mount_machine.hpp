// SPDX-License-Identifier: Apache-2.0
/// @file
/// MountMachine: what the supervisor of a mount has to do next. Decides; does nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include <erofs_oci/core/clock.hpp>

namespace erofs_oci {

/// The state of a mount.
enum class MountState : std::uint8_t {
  opening,        ///< the first worker opens the image; the front end is not served here yet
  proving,        ///< the worker has what it serves; no read has been answered
  taking,         ///< another process serves the mount, and was asked for it
  mounting,       ///< a read was answered; the mounting process mounts the file system
  mounted,        ///< served
  unmounting,     ///< umount(2) was begun
  detaching,      ///< that failed, for the mount is in use: umount(2) with MNT_DETACH was begun
  detached,       ///< at no path any more; served to its last user
  draining,       ///< another process wants to serve it; requests in flight are answered first
  giving,         ///< the other process was sent the front end, and has not confirmed
  disconnecting,  ///< the front end is being ended, also while it is in use
  finished,       ///< the front end has ended
  handed_over,    ///< another process serves it
  abandoned,      ///< it was never mounted
};

/// What the supervisor does now.
enum class MountAction : std::uint8_t {
  nothing,     ///< wait for the next event
  serve,       ///< give the worker what it serves: an NBD channel, or a FUSE connection
  take,        ///< ask the process that serves the mount for its front end; then taken()
  announce,    ///< have the file system mounted; then mounted() or mounting_failed()
  settle,      ///< the mount stands, and no process waits for this one any more
  unmount,     ///< umount(2); then unmounted()
  detach,      ///< umount(2) with MNT_DETACH; then unmounted()
  disconnect,  ///< end the front end, also while it is in use; device_ended() or workers_ended()
               ///< follows
  reconnect,   ///< forget the device's sockets and kill the worker, the next one gets others; then
               ///< resumed()
  drain,       ///< take no more requests, and answer those in flight; then drained()
  give,        ///< send the front end to the process that wants it; then confirmed()
  resume,      ///< serve on; then resumed()
  let_go,      ///< forget the front end and the record: they are another process's
  finish,      ///< let the worker end
  abandon,     ///< undo what was done so far, and fail
};

/// What the process that was given a mount has answered.
enum class Confirmation : std::uint8_t {
  taken,    ///< it serves
  refused,  ///< it has ended, or was sent nothing: it will never serve
  unknown,  ///< its answer is malformed or missing: it may serve
};

/// What a mount is made of, for MountMachine.
struct MountOutline {
  /// How the kernel reaches the image.
  enum class FrontEnd : std::uint8_t {
    device,      ///< NBD: the supervisor owns sockets, and can connect others
    connection,  ///< FUSE: each worker reads the same descriptor
  };
  /// Where it comes from.
  enum class Origin : std::uint8_t {
    fresh,        ///< it is not mounted yet
    left_behind,  ///< it is mounted, and the process that has served it is dead
    predecessor,  ///< it is mounted, and another process serves it until it hands it over
  };
  FrontEnd front_end = FrontEnd::device;
  Origin origin = Origin::fresh;
  /// Whether a device whose sockets were closed can get others, as by netlink.
  bool may_reconnect = false;
  /// How long the other process may take to confirm. Default: 60 s.
  std::chrono::milliseconds confirm_within{60'000};
};

/// The life of one mount, from its first worker to its end. Each event yields one action, which the
/// caller carries out before the next event. Events that make no sense in a state change nothing.
/// Workers that come and go are Supervision's concern: here they count only where the mount does
/// not stand yet or is handed over.
///
/// Holds, whatever the sequence of events: MountAction::settle comes at most once. Between
/// MountAction::give and its outcome nothing else is done to the front end. A device that another
/// process may serve is served here no more.
///
/// @par Thread safety
/// None: one thread at a time.
template <Clock Time = SteadyClock>
class MountMachine {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit MountMachine(MountOutline outline, Time time = {})
      : outline_(outline), time_(std::move(time)) {}

  [[nodiscard]] MountState state() const noexcept { return state_; }

  /// When expired() is due; empty if only an event goes on.
  [[nodiscard]] std::optional<TimePoint> deadline() const noexcept { return deadline_; }

  /// Whether a worker has answered a read, so that the next ones are replaced when they end.
  [[nodiscard]] bool has_served() const noexcept {
    return state_ >= MountState::mounting && state_ != MountState::abandoned;
  }

  /// Whether nothing is left to do.
  [[nodiscard]] bool is_over() const noexcept {
    return state_ == MountState::finished || state_ == MountState::handed_over ||
           state_ == MountState::abandoned;
  }

  /// Whether the front end exists already and is not set up anew.
  [[nodiscard]] bool is_earlier() const noexcept {
    return outline_.origin != MountOutline::Origin::fresh;
  }

  /// Whether another process serves the mount for now.
  [[nodiscard]] bool has_predecessor() const noexcept {
    return outline_.origin == MountOutline::Origin::predecessor && !has_served();
  }

  /// @name The first worker and the mount
  /// @{

  /// A worker has opened the image.
  [[nodiscard]] MountAction opened() {
    if (is_over()) return MountAction::nothing;
    if (state_ != MountState::opening) return MountAction::serve;
    if (has_predecessor() && outline_.front_end == MountOutline::FrontEnd::connection) {
      return enter(MountState::taking, MountAction::take);
    }
    return enter(MountState::proving, MountAction::serve);
  }

  /// A worker has answered a read.
  [[nodiscard]] MountAction answered() {
    if (state_ != MountState::proving) return MountAction::nothing;
    if (has_predecessor() && outline_.front_end == MountOutline::FrontEnd::device) {
      return enter(MountState::taking, MountAction::take);
    }
    if (is_earlier()) return enter(MountState::mounted, MountAction::settle);
    return enter(MountState::mounting, MountAction::announce);
  }

  /// The process that has served the mount has sent its front end; or, if not `ok`, will not.
  [[nodiscard]] MountAction taken(bool ok) {
    if (state_ != MountState::taking) return MountAction::nothing;
    if (!ok) return enter(MountState::abandoned, MountAction::abandon);
    if (outline_.front_end == MountOutline::FrontEnd::connection) {
      return enter(MountState::proving, MountAction::serve);
    }
    return enter(MountState::mounted, MountAction::settle);
  }

  /// The file system is mounted.
  [[nodiscard]] MountAction mounted() {
    if (state_ != MountState::mounting) return MountAction::nothing;
    return enter(MountState::mounted, MountAction::settle);
  }

  /// It cannot be mounted, or the worker cannot serve it.
  [[nodiscard]] MountAction mounting_failed() {
    if (state_ > MountState::mounting) return MountAction::nothing;
    return enter(MountState::abandoned, MountAction::abandon);
  }
  /// @}

  /// @name Its end
  /// @{

  /// A user wants this process to end. The first time the file system is unmounted, or, if it is in
  /// use, detached and served to its last user; the second time it ends under its users.
  /// @param reachable  the mount point is in this process's mount namespace
  [[nodiscard]] MountAction interrupted(bool reachable) {
    using enum MountState;
    switch (state_) {
      case opening:
      case proving:
      case taking:
      case mounting: return enter(abandoned, MountAction::abandon);
      case mounted:
        if (reachable) return enter(unmounting, MountAction::unmount);
        return enter(disconnecting, MountAction::disconnect);
      case unmounting:
      case detaching:
      case detached:
      case disconnecting: return enter(disconnecting, MountAction::disconnect);
      case draining:
      case giving: was_interrupted_ = true; break;
      case finished:
      case handed_over:
      case abandoned: break;
    }
    return MountAction::nothing;
  }

  /// umount(2) has returned.
  [[nodiscard]] MountAction unmounted(bool ok) {
    using enum MountState;
    if (state_ == unmounting) {
      return ok ? enter(detached, MountAction::nothing) : enter(detaching, MountAction::detach);
    }
    if (state_ != detaching) return MountAction::nothing;
    return ok ? enter(detached, MountAction::nothing)
              : enter(disconnecting, MountAction::disconnect);
  }

  /// No file system is mounted from the device any more, which does not end it by itself.
  [[nodiscard]] MountAction unused() {
    using enum MountState;
    if (state_ < mounted || state_ > detached) return MountAction::nothing;
    return enter(disconnecting, MountAction::disconnect);
  }

  /// The kernel has closed the device's sockets.
  /// @param connected  the kernel has the device still, and lets requests wait: no disconnection
  [[nodiscard]] MountAction device_ended(bool connected) {
    using enum MountState;
    if (state_ == giving || is_over()) return MountAction::nothing;
    if (state_ < mounting) return enter(abandoned, MountAction::abandon);
    if (connected && outline_.may_reconnect && state_ != disconnecting) {
      if (state_ == draining) state_ = mounted;  // the other process may ask again
      outline_.origin = MountOutline::Origin::left_behind;
      return MountAction::reconnect;
    }
    return enter(finished, MountAction::finish);
  }

  /// No worker is left, and none will be started: the last one has ended on purpose.
  [[nodiscard]] MountAction workers_ended() {
    using enum MountState;
    if (is_over() || state_ == giving) return MountAction::nothing;
    if (state_ == draining && outline_.front_end == MountOutline::FrontEnd::connection) {
      return drained();
    }
    return enter(state_ < mounting ? abandoned : finished,
                 state_ < mounting ? MountAction::abandon : MountAction::finish);
  }
  /// @}

  /// @name Handing it over
  /// @{

  /// Another process asks for the mount; MountAction::nothing: it cannot have it.
  [[nodiscard]] MountAction asked_for() {
    if (state_ != MountState::mounted) return MountAction::nothing;
    return enter(MountState::draining, MountAction::drain);
  }

  /// Every request that was taken is answered.
  [[nodiscard]] MountAction drained() {
    if (state_ != MountState::draining) return MountAction::nothing;
    enter(MountState::giving, MountAction::give);
    deadline_ = time_.now() + outline_.confirm_within;
    return MountAction::give;
  }

  /// The other process has answered, or has ended without an answer. If it may serve, a device is
  /// its own, since two must never serve one; a connection can be served by two.
  [[nodiscard]] MountAction confirmed(Confirmation confirmation) {
    if (state_ != MountState::giving) return MountAction::nothing;
    auto const is_device = outline_.front_end == MountOutline::FrontEnd::device;
    if (confirmation == Confirmation::taken ||
        (confirmation == Confirmation::unknown && is_device)) {
      return enter(MountState::handed_over, MountAction::let_go);
    }
    return enter(MountState::mounted, MountAction::resume);
  }

  /// The deadline has passed; without effect if it has not.
  [[nodiscard]] MountAction expired() {
    if (!deadline_ || time_.now() < *deadline_) return MountAction::nothing;
    return confirmed(Confirmation::unknown);
  }

  /// MountAction::resume or reconnect is carried out.
  /// @param reachable  as for interrupted(), whose event may have come in between
  [[nodiscard]] MountAction resumed(bool reachable) {
    if (state_ != MountState::mounted || !std::exchange(was_interrupted_, false)) {
      return MountAction::nothing;
    }
    return interrupted(reachable);
  }
  /// @}

 private:
  MountAction enter(MountState state, MountAction action) {
    state_ = state;
    deadline_.reset();
    return action;
  }

  MountOutline outline_;
  [[no_unique_address]] Time time_;
  MountState state_ = MountState::opening;
  std::optional<TimePoint> deadline_{};
  bool was_interrupted_ = false;  // while it was handed over
};

}  // namespace erofs_oci
