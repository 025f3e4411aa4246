// SPDX-License-Identifier: Apache-2.0
/// @file
/// MountSupervisor: keeps an image mounted and replaces the workers that read it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <poll.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/host/mount_point.hpp>
#include <erofs_oci/host/unmount.hpp>
#include <erofs_oci/mount/child_task.hpp>
#include <erofs_oci/mount/front_end.hpp>
#include <erofs_oci/mount/fuse_message.hpp>
#include <erofs_oci/mount/handover.hpp>
#include <erofs_oci/mount/mount_channel.hpp>
#include <erofs_oci/mount/mount_hooks.hpp>
#include <erofs_oci/mount/mount_machine.hpp>
#include <erofs_oci/mount/mount_worker.hpp>
#include <erofs_oci/mount/worker_process.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/nbd/wakeup.hpp>
#include <erofs_oci/posix/wait.hpp>
#include <erofs_oci/recovery/supervision.hpp>
#include <erofs_oci/recovery/supervisor.hpp>

namespace erofs_oci {

/// Keeps one mount: starts a worker, has what it reads mounted, and replaces workers that die or
/// hang until the mount ends, or is handed over to another process. MountMachine and Supervision
/// decide; this class carries out.
///
/// By NBD this process has the device's sockets, by FUSE a copy of the descriptor. So a worker can
/// be killed at any instant, and readers of the mount only wait. This process reads nothing of the
/// image. A child does what may wait for reads of the mount, such as umount(2).
///
/// @par Thread safety
/// None: run() once; all other members on its thread, from hooks.
class MountSupervisor {
 public:
  MountSupervisor(MountPlan plan, MountHooks hooks)
      : plan_(std::move(plan)),
        hooks_(std::move(hooks)),
        front_end_(plan_.way, plan_.device),
        machine_({.front_end = front_end_.is_device() ? MountOutline::FrontEnd::device
                                                      : MountOutline::FrontEnd::connection,
                  .origin = plan_.origin,
                  .may_reconnect = plan_.way == MountWay::netlink && !plan_.in_process}) {}

  /// Keeps the mount until it ends. Takes SIGCHLD for this thread.
  /// @error{as the worker, the kernel and the hooks say: the mount has never stood\, and nothing of
  /// it is left}
  [[nodiscard]] Result<MountEnd> run() {
    auto end = run_to_end();
    if (!end && machine_.state() <= MountState::mounting) fail_with(end.error());
    if (end && *end == MountEnd::given_up) return end;
    clean_up();
    if (failure_) return fail(*failure_);
    return end;
  }

  /// @name Events, from hooks
  /// @{

  /// What was announced is mounted.
  /// @param target  as MountPlan::target
  void mounted(std::string target) {
    plan_.target = std::move(target);
    if (!plan_.target.empty()) note_mount();
    carry_out(machine_.mounted());
  }

  /// The mount is at another path now; or it has ended, and this one is left of its file system.
  /// @param target    as MountPlan::target
  /// @param mount_id  as MountPlan::mount_id
  void found_at(std::string target, std::uint64_t mount_id) {
    plan_.target = std::move(target);
    plan_.mount_id = mount_id;
  }

  /// What was announced could not be mounted. Without effect once it is.
  void mounting_failed(Error error) { fail_with(std::move(error)); }

  /// A user wants the mount to end: the first time it is unmounted, or, if it is in use, detached
  /// and served to its last user; the second time it ends under its users.
  void interrupt() {
    if (machine_.state() <= MountState::mounting) {
      failure_ = make_error(std::make_error_code(std::errc::interrupted), "mount");
    }
    carry_out(machine_.interrupted(!plan_.target.empty()));
  }

  /// A device that does not end by itself may be mounted nowhere any more: finds out, and ends it
  /// then. Does not wait.
  void check_use() {
    if (device() == nullptr || tasks_.fd() >= 0) return;
    run_in_child([index = device()->index()] { return nbd_is_in_use(index); },
                 [this](bool used) {
                   if (!used) carry_out(machine_.unused());
                 });
  }

  /// Does what may wait for reads of the mount, which this process has to answer, in a child of it;
  /// one task at a time.
  /// @param done  gets what `work` has returned; see ChildTask::begin()
  void run_in_child(std::function<bool()> const& work, std::function<void(bool)> done) {
    auto const begun = tasks_.begin(work, std::move(done));
    if (!begun) log(MountSeverity::error, begun.error().message());
  }

  /// Another process wants the mount.
  /// @param socket  of type SOCK_SEQPACKET, to that process; taken if this returns true
  /// @return whether the mount can be handed over now; what comes of it the socket tells
  [[nodiscard]] bool hand_over(UniqueFd& socket) {
    auto const action = machine_.asked_for();
    if (action == MountAction::nothing) return false;
    handover_.begin(std::move(socket));
    carry_out(action);
    return true;
  }
  /// @}

  /// @name What is kept
  /// @{

  /// The device; null: there is none yet, or it is FUSE.
  [[nodiscard]] RelayedDevice const* device() const noexcept { return front_end_.device(); }

  [[nodiscard]] WorkerProcess const& worker() const noexcept { return *worker_; }
  [[nodiscard]] MountPlan const& plan() const noexcept { return plan_; }

  /// What went wrong last, or empty.
  [[nodiscard]] std::string const& last_error() const noexcept { return last_error_; }

  /// After run(): whether the kernel has not let go of the device, so that its record must stay.
  [[nodiscard]] bool is_still_connected() const noexcept { return still_connected_; }

  /// Sends a message to the worker, which may have ended.
  void tell_worker(MountMessage const& message) const { static_cast<void>(worker_->send(message)); }
  /// @}

 private:
  [[nodiscard]] bool is_fresh() const noexcept {
    return plan_.origin == MountOutline::Origin::fresh;
  }

  /// Notes which mount is this one, while nothing can be mounted over it yet.
  void note_mount() {
    auto const id = mount_id_at(plan_.target);
    if (id) plan_.mount_id = *id;
    if (!id) log(MountSeverity::warning, id.error().message());
  }

  void log(MountSeverity severity, std::string const& text) const {
    if (hooks_.log) hooks_.log(severity, text);
  }

  Result<MountEnd> run_to_end() {
    EROFS_OCI_TRY_ASSIGN(worker_, WorkerProcess::make());
    EROFS_OCI_TRY_ASSIGN(stop_, nbd::Wakeup::open());
    EROFS_OCI_TRY(start_first());
    while (!machine_.has_served()) {
      EROFS_OCI_TRY(turn());
      if (failure_) return fail(*failure_);
      if (worker_->fd() < 0 && !machine_.has_served()) {
        return fail(Errc::unavailable, "the process that reads the image has ended");
      }
    }
    return plan_.in_process ? serve_alone() : serve_by_workers();
  }

  /// Has the worker asked to end, for good.
  void stop() const {
    if (stop_) stop_->notify();
  }

  /// One round of poll(2).
  /// @param fds  what else to wait for
  /// @return all that was waited for, `fds` first
  Result<std::vector<pollfd>> turn(std::vector<pollfd> fds = {}) {
    auto const others = fds.size();
    watch(fds);
    EROFS_OCI_TRY(poll_until(fds, std::chrono::steady_clock::time_point::max()));
    act(std::span(fds).subspan(others));
    return fds;
  }

  // --- workers -----------------------------------------------------------------------------------

  Result<void> start_first() {
    if (plan_.in_process) return worker_->start_thread(hooks_.work);
    EROFS_OCI_TRY_ASSIGN(first_, start_worker());
    return {};
  }

  Result<SupervisedDaemon> start_worker() {
    has_opened_ = false;
    worker_reads_connection_ = false;
    auto daemon = worker_->start(hooks_.work, plan_.keep);
    if (daemon && hooks_.started) hooks_.started();
    return daemon;
  }

  Result<MountEnd> serve_by_workers() {
    for (;;) {
      Supervisor supervisor(supervisor_hooks(), plan_.supervision);
      EROFS_OCI_TRY_ASSIGN(auto const end, supervisor.run(stop_->fd(), std::exchange(first_, {})));
      if (end == SupervisionState::given_up) {
        last_error_ = supervisor.reason();
        if (machine_.state() > MountState::mounting) return MountEnd::given_up;
        return fail(Errc::unavailable, last_error_);
      }
      carry_out(machine_.workers_ended());
      while (machine_.state() == MountState::giving) EROFS_OCI_TRY(turn());
      if (machine_.state() == MountState::handed_over) return MountEnd::handed_over;
      if (machine_.is_over()) return MountEnd::ended;
      stop_->clear();  // a connection that the other process has not taken
    }
  }

  /// Until the mount or the thread that reads the image ends.
  Result<MountEnd> serve_alone() {
    for (;;) {
      EROFS_OCI_TRY_ASSIGN(auto const fds,
                           turn({{stop_->fd(), POLLIN, 0}, {worker_->thread_end_fd(), POLLIN, 0}}));
      if (fds[0].revents != 0 || fds[1].revents != 0) break;
    }
    front_end_.dismiss();
    worker_->stop();
    while (worker_->fd() >= 0) hear_worker();  // what it has told before it ended
    carry_out(machine_.workers_ended());
    return MountEnd::ended;
  }

  [[nodiscard]] SupervisorHooks supervisor_hooks() {
    SupervisorHooks hooks;
    hooks.start = [this] { return restart(); };
    hooks.ended = [this](ProcessExit const& exit) {
      worker_->note_end(exit);
      if (worker_->end() == EngineEnd::crashed) front_end_.note_crash();
    };
    if (front_end_.is_device()) {
      hooks.verify = [this] {
        return front_end_.begin_verify([this](Result<void> const& ok) {
          if (!ok) log(MountSeverity::error, "worker: " + ok.error().message());
        });
      };
      hooks.asked = [this] { return front_end_.has_reads(); };
    }
    hooks.watch = [this](std::vector<pollfd>& fds) { watch(fds); };
    hooks.act = [this](std::span<pollfd const> fds) { act(fds); };
    hooks.note = [this](Decision decision, Supervision<> const& machine) {
      note(decision, machine.reason());
    };
    return hooks;
  }

  Result<SupervisedDaemon> restart() {
    front_end_.drop_worker(worker_->end());
    if (device() != nullptr) complain(device()->relay().complaint());
    return start_worker();
  }

  /// Tells what the relay has found, once.
  void complain(std::string const& text) {
    if (text == complaint_) return;
    last_error_ = complaint_ = text;
    log(MountSeverity::error, text);
  }

  void note(Decision decision, std::string const& why) {
    using enum Decision;
    switch (decision) {
      case start: log(MountSeverity::warning, "worker replaced: " + why); break;
      case kill:
        log(MountSeverity::error, "worker killed: " + why);
        worker_->note_hang();
        break;
      case pause:
        log(MountSeverity::info, "worker: " + why + "; the next one is started soon");
        break;
      default: break;
    }
    if (decision == start || decision == kill) last_error_ = why;
  }

  // --- the poll(2) loop --------------------------------------------------------------------------

  /// Places of this object's own descriptors in what watch() adds.
  enum Place : std::size_t {
    at_worker,
    at_task,
    at_children,
    at_connection,
    at_successor,
    at_timer,
    own_places,
  };

  void watch(std::vector<pollfd>& fds) {
    auto const begin = fds.size();
    fds.push_back({worker_->fd(), POLLIN, 0});
    fds.push_back({tasks_.fd(), POLLIN, 0});
    fds.push_back({worker_->child_fd(), POLLIN, 0});
    // A worker sees the end of its connection by itself, and looking would wake this process for
    // each request.
    auto const& connection = front_end_.connection();
    auto const looks = connection && !worker_reads_connection_;
    fds.push_back({looks ? connection->device.get() : -1, 0, 0});
    fds.push_back({handover_.fd(), POLLIN, 0});
    fds.push_back({handover_.timer_fd(), POLLIN, 0});
    if (hooks_.watch) hooks_.watch(fds);
    device_begins_ = fds.size() - begin;
    front_end_.watch(fds);
  }

  void act(std::span<pollfd const> fds) {
    // The device first: what follows may make another one.
    front_end_.act(fds.subspan(device_begins_));
    if (hooks_.act) hooks_.act(fds.subspan(own_places, device_begins_ - own_places));
    if (fds[at_worker].revents != 0) hear_worker();
    if (fds[at_task].revents != 0) tasks_.finish();
    if (fds[at_children].revents != 0 && worker_->resume_stopped()) {
      log(MountSeverity::warning, "worker was stopped (SIGSTOP); resuming it");
    }
    if (fds[at_connection].revents != 0) stop();  // unmounted, while there was no worker
    if (fds[at_successor].revents != 0) hear_successor();
    if (fds[at_timer].revents != 0) carry_out(machine_.expired());
    if (device() != nullptr && device()->ended()) on_device_end(*device());
    if (front_end_.is_idle()) carry_out(machine_.drained());
  }

  void hear_worker() {
    auto message = worker_->receive();
    if (!message) return;
    switch (message->kind) {
      case MountMessage::Kind::opened: return check(on_opened(*message));
      case MountMessage::Kind::connected: return check(on_connected(*std::move(message)));
      case MountMessage::Kind::failed:
        last_error_ = message->error.message();
        log(machine_.has_served() ? MountSeverity::error : MountSeverity::info,
            "worker: " + last_error_);
        if (!machine_.has_served() || plan_.in_process) fail_with(message->error);
        return;
      case MountMessage::Kind::counts:
        if (hooks_.counted) hooks_.counted(message->text);
        return;
      case MountMessage::Kind::trouble: last_error_ = message->text; return;
      default: return;
    }
  }

  /// A failure ends the mount before it has served, and this worker later.
  void check(Result<void> const& ok) {
    if (ok) return;
    if (!machine_.has_served()) return fail_with(ok.error());
    log(MountSeverity::error, "worker: " + ok.error().message());
    worker_->kill();
  }

  void fail_with(Error error) {
    if (machine_.state() > MountState::mounting && !plan_.in_process) return;
    if (!failure_) failure_ = std::move(error);
    carry_out(machine_.mounting_failed());
  }

  Result<void> on_opened(MountMessage const& message) {
    if (std::exchange(has_opened_, true)) return fail(Errc::protocol, "it has opened the image");
    EROFS_OCI_TRY_ASSIGN(image_, WorkerImage::from_message(message));
    if (hooks_.opened) EROFS_OCI_TRY(hooks_.opened(*image_));
    auto const action = machine_.opened();
    if (action == MountAction::serve) return give_port();
    carry_out(action);
    return {};
  }

  /// Gives the worker what it serves.
  Result<void> give_port() {
    if (front_end_.is_device() && device() == nullptr) EROFS_OCI_TRY(attach());
    EROFS_OCI_TRY_ASSIGN(auto const port, front_end_.port());
    EROFS_OCI_TRY(worker_->send(port));
    // Later workers are verified by the Supervisor; one of FUSE tells when it has answered a read.
    if (machine_.has_served() || !front_end_.is_device()) return {};
    front_end_.verify([this](Result<void> const& ok) {
      if (!ok) return check(ok);
      carry_out(machine_.answered());
    });
    return {};
  }

  Result<void> attach() {
    using enum MountFrontEnd::Attach;
    auto const how = machine_.has_predecessor() ? beside : machine_.is_earlier() ? again : anew;
    if (how != beside && hooks_.attaching) hooks_.attaching();
    EROFS_OCI_TRY(front_end_.attach(*image_, how, plan_.index));
    plan_.index = device()->index();
    if (how != beside && hooks_.attached) hooks_.attached();
    return {};
  }

  Result<void> on_connected(MountMessage message) {
    if (front_end_.is_device() || !has_opened_ || std::exchange(worker_reads_connection_, true)) {
      return fail(Errc::protocol, "a connection that was not asked for");
    }
    EROFS_OCI_TRY_ASSIGN(auto connection, connection_of(std::move(message)), "worker");
    // A later worker serves the one that it was given.
    if (!front_end_.connection()) EROFS_OCI_TRY(front_end_.set(std::move(connection)));
    if (is_fresh() && !plan_.mount_id) note_mount();
    if (!machine_.has_served() && hooks_.attached) hooks_.attached();
    carry_out(machine_.answered());
    return {};
  }

  /// The kernel has closed the device's sockets.
  void on_device_end(RelayedDevice const& device) {
    auto const hung_up = *device.ended() == NbdRelayEnd::hung_up;
    auto const action = machine_.device_ended(hung_up && device.is_connected());
    if (action == MountAction::abandon && !failure_) {
      failure_ = make_error(Errc::unavailable, device.path() + ": the kernel has closed it");
    }
    carry_out(action);
  }

  // --- actions -----------------------------------------------------------------------------------

  void carry_out(MountAction action) {
    using enum MountAction;
    switch (action) {
      case nothing: return;
      case serve: return check(give_port());
      case take: return take_over();
      case announce: return hooks_.announce(device() != nullptr ? device()->path() : std::string());
      case settle: return settle_mount();
      case unmount: return unmount_in_child(UnmountBusy::refuse);
      case detach:
        log(MountSeverity::warning,
            plan_.target + " is in use: it is detached, and served to its last user");
        return unmount_in_child(UnmountBusy::detach);
      case disconnect: return end_front_end();
      case reconnect: return lose_device();
      case drain: return front_end_.is_device() ? front_end_.pause() : stop();
      case give: return give_front_end();
      case resume: return resume_service();
      case let_go: return forget();
      case finish: front_end_.dismiss(); return stop();
      case abandon:
        if (is_fresh()) end_front_end();
        return stop();
    }
  }

  void take_over() {
    auto const ok = adopt();
    auto const action = machine_.taken(ok.has_value());
    if (!ok) failure_ = ok.error();
    if (ok && front_end_.is_device() && hooks_.attached) hooks_.attached();
    carry_out(action);
  }

  Result<void> adopt() {
    if (!hooks_.take) return fail(Errc::unsupported, "no process to take the mount from");
    EROFS_OCI_TRY_ASSIGN(auto message, hooks_.take());
    return front_end_.adopt(std::move(message));
  }

  void settle_mount() {
    auto const warning = front_end_.settle();
    if (hooks_.settled) hooks_.settled(warning);
  }

  void unmount_in_child(UnmountBusy busy) {
    if (is_covered()) {
      return log(MountSeverity::error, plan_.target +
                                           ": another file system is mounted over the image, which "
                                           "is served on; unmount that first: umount " +
                                           plan_.target);
    }
    run_in_child(
        [this, busy] {
          auto const others = !hooks_.unmount_others || hooks_.unmount_others(busy);
          return others && front_end_.unmount(plan_.target, busy, plan_.mount_id).has_value();
        },
        [this](bool ok) { carry_out(machine_.unmounted(ok)); });
  }

  /// Whether another mount than this one is what the mount point's path leads to.
  [[nodiscard]] bool is_covered() const {
    auto const top = mount_id_at(plan_.target);
    return top.has_value() && plan_.mount_id != *top;
  }

  /// Ends the mount, also while it is in use.
  void end_front_end() {
    if (hooks_.unmount_others && !front_end_.is_device()) {
      static_cast<void>(hooks_.unmount_others(UnmountBusy::detach));
    }
    front_end_.end(plan_.target, plan_.mount_id);
    stop();
  }

  /// The next worker's start connects the device again.
  void lose_device() {
    log(MountSeverity::warning,
        "the kernel has closed the connection; it gets another: " + device()->relay().complaint());
    front_end_.lose();
    handover_.end();
    worker_->kill();
    carry_out(machine_.resumed(!plan_.target.empty()));
  }

  // --- handing over ------------------------------------------------------------------------------

  /// Sends the front end to the process that wants it; its answer or the deadline goes on.
  void give_front_end() {
    auto message = front_end_.release();
    auto const sent = message ? handover_.send(*std::move(message), *machine_.deadline())
                              : Result<void>(fail(message.error()));
    if (sent) return;
    log(MountSeverity::error, "handover failed: " + sent.error().message());
    carry_out(machine_.confirmed(Confirmation::refused));
  }

  void hear_successor() {
    auto const answer = handover_.receive();
    if (!answer) return;
    if (*answer == Confirmation::refused) {
      log(MountSeverity::error, "handover failed: the other process has ended");
    } else if (*answer == Confirmation::unknown) {
      log(MountSeverity::error, "handover failed: the other process is not understood");
    }
    carry_out(machine_.confirmed(*answer));
  }

  void resume_service() {
    if (auto const ok = front_end_.resume(handover_.end()); !ok) {
      log(MountSeverity::error, ok.error().message());
    }
    carry_out(machine_.resumed(!plan_.target.empty()));
  }

  /// The mount and its record are another process's.
  void forget() {
    log(MountSeverity::info, "handed over");
    handover_.end();
    if (hooks_.let_go) hooks_.let_go();
    front_end_.dismiss();
    stop();
  }

  // --- the end -----------------------------------------------------------------------------------

  /// Leaves nothing behind, but for what another process serves or will serve.
  void clean_up() {
    if (machine_.state() == MountState::handed_over) return;
    auto const abandoned = machine_.state() == MountState::abandoned;
    front_end_.dismiss();
    if (worker_) worker_->stop();
    if (device() == nullptr || (abandoned && !is_fresh())) return;
    auto const path = device()->path();
    still_connected_ = !front_end_.disconnect();
    if (still_connected_) log(MountSeverity::warning, path + " is still connected");
  }

  MountPlan plan_;
  MountHooks hooks_;
  MountFrontEnd front_end_;
  MountMachine<> machine_;
  std::optional<nbd::Wakeup> stop_;
  std::optional<WorkerProcess> worker_;
  std::optional<SupervisedDaemon> first_;  // until it has answered a read
  std::optional<WorkerImage> image_;       // of the newest worker
  bool has_opened_ = false;                // the present worker has told of its image
  bool worker_reads_connection_ = false;
  ChildTask tasks_;
  MountHandover handover_;
  std::size_t device_begins_ = 0;  // in what watch() adds
  bool still_connected_ = false;
  std::string last_error_;
  std::string complaint_;  // of the relay, as it was told
  std::optional<Error> failure_;
};

}  // namespace erofs_oci
