// SPDX-License-Identifier: Apache-2.0
#include "supervise.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/host/unmount.hpp>
#include <erofs_oci/mount/mount_supervisor.hpp>
#include <erofs_oci/posix/timer.hpp>
#include <erofs_oci/recovery/journal.hpp>
#include <erofs_oci/recovery/record_codec.hpp>

#include "choose_way.hpp"
#include "control.hpp"
#include "daemon.hpp"
#include "daemon_socket.hpp"
#include "merkle_tree.hpp"
#include "metrics.hpp"
#include "mount_journal.hpp"
#include "mount_report.hpp"
#include "mount_table.hpp"
#include "records.hpp"
#include "same_image.hpp"
#include "share.hpp"
#include "upstream_mount.hpp"
#include "worker.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::MountChannel;
using erofs_oci::MountEnd;
using erofs_oci::MountHooks;
using erofs_oci::MountMessage;
using erofs_oci::MountPlan;
using erofs_oci::MountSeverity;
using erofs_oci::MountSupervisor;
using erofs_oci::MountWay;
using erofs_oci::Record;
using erofs_oci::RecordFrontEnd;
using erofs_oci::Signals;
using erofs_oci::UnmountBusy;
using erofs_oci::WorkerImage;
using erofs_oci::WorkerSeat;
using Origin = erofs_oci::MountOutline::Origin;
using namespace std::chrono_literals;

/// A name that nothing else has: "m" and 16 hexadecimal digits.
std::string new_identifier() {
  std::random_device random;
  std::array<std::uint32_t, 2> const words{random(), random()};
  return "m" + erofs_oci::hex(std::as_bytes(std::span(words)));
}

RecordFrontEnd front_end_of(MountWay way) {
  if (way == MountWay::netlink) return RecordFrontEnd::netlink;
  return way == MountWay::ioctl ? RecordFrontEnd::ioctl : RecordFrontEnd::fuse;
}

/// One mount, as mount-oci has it: with a record, a control socket, metrics, and a process that
/// waits until it is mounted. MountSupervisor keeps it.
class RecordedMount {
 public:
  RecordedMount(Options options, MountChannel mounter, Life life,
                std::optional<EarlierMount> earlier, Log& log)
      : options_(std::move(options)),
        mounter_(std::move(mounter)),
        life_(life),
        earlier_(std::move(earlier)),
        log_(log) {}

  Result<void> run() {
    auto const end = prepare().and_then([this] { return keep(); });
    if (!end) {
      if (!settled_) mounter_.tell({MountMessage::Kind::failed, {}, end.error(), {}});
      if (!earlier_ && !(supervisor_ && supervisor_->is_still_connected())) remove_record();
      // The device waits on for the next process that asks for it.
      if (options_.image.in_place_of) remove_record();
      return fail(end.error());
    }
    if (*end == MountEnd::given_up) {
      give_up();
      return fail(Errc::unavailable, supervisor_->last_error());
    }
    if (*end == MountEnd::ended && !supervisor_->is_still_connected()) remove_record();
    return {};
  }

 private:
  // --- before the first worker -------------------------------------------------------------------

  Result<void> prepare() {
    EROFS_OCI_TRY_ASSIGN(auto signals, Signals::take());
    signals_ = std::make_unique<Signals>(std::move(signals));
    hide_memory();
    // The working directory will be another one for the workers to come.
    auto& password = options_.image.password_file;
    if (!password.empty()) password = std::filesystem::absolute(password).string();
    EROFS_OCI_TRY(earlier_ ? prepare_earlier() : prepare_new());
    if (earlier_) find_earlier();
    if (!replaces()) EROFS_OCI_TRY(open_metrics());
    auto const& directory = earlier_ ? earlier_->journal : journal_.directory();
    if (!directory.empty()) options_.image.own_store = index_directory(directory, id_);
    return {};
  }

  Result<void> open_metrics() {
    if (options_.keep.metrics.empty()) return {};
    EROFS_OCI_TRY_ASSIGN(
        metrics_,
        listen_metrics(options_.keep.metrics, [this] { return report_metrics(report()); }),
        "--metrics");
    return {};
  }

  Result<void> prepare_new() {
    EROFS_OCI_TRY_ASSIGN(auto const choice, choose_way(options_.mount.attach, {}, log_));
    plan_.way = *choice.way;
    how_ = choice.summary();
    EROFS_OCI_TRY(settle_verity(options_.image, plan_.way, log_));
    id_ = new_identifier();
    if (!is_nbd(plan_.way)) {
      EROFS_OCI_TRY_ASSIGN(auto const place, erofs_oci::MountPoint::open(options_.mount.target));
      plan_.target = place.path();
    }
    plan_.in_process = !options_.keep.supervise;
    if (plan_.in_process) {
      options_.keep.dead_timeout = 0s;  // no other process would serve it
    } else {
      journal_ = MountJournal::begin(options_, id_, log_);
    }
    return {};
  }

  /// For an earlier mount. Unless it is handed over, the process that has served it must be gone:
  /// it holds the record's lock while it lives.
  Result<void> prepare_earlier() {
    EROFS_OCI_TRY_ASSIGN(auto const journal, erofs_oci::Journal::open(earlier_->journal));
    if (!earlier_->replace) EROFS_OCI_TRY(lock_record(journal, 2s));
    plan_.origin = earlier_->replace ? Origin::predecessor : Origin::left_behind;
    // Of another tool's device there is no record of ours yet.
    if (auto const& device = options_.image.in_place_of) {
      plan_.way = MountWay::netlink;
      plan_.target = device->mount_point;
      plan_.index = device->index;
      id_ = device->backend;
      options_.keep.dead_timeout = upstream_dead_timeout;  // which stays as it is
      return {};
    }
    EROFS_OCI_TRY_ASSIGN(record_, journal.read(earlier_->name));
    EROFS_OCI_TRY_ASSIGN(plan_.way, way_of(*record_));
    plan_.target = record_->mount_point;
    plan_.index = record_->attach.index;
    id_ = record_->attach.backend;
    options_.keep.dead_timeout = record_->attach.dead_connection_timeout;
    return {};
  }

  /// Which mount is the earlier one: at its place, or another one of the same file system. What is
  /// mounted over it is not.
  void find_earlier() {
    auto const table = read_mount_table();
    if (!table) return warn_of(fail(table.error()));
    for (auto const& entry : *table) {
      if (entry.target == plan_.target && is_ours(entry)) plan_.mount_id = entry.id;
    }
    if (!record_) return;
    auto const mounts = NotedMount{earlier_->name, record_, {}, true}.mounts(*table);
    auto const is_there = [this](MountEntry const& one) { return one.id == plan_.mount_id; };
    if (mounts.empty() || std::ranges::any_of(mounts, is_there)) return;
    plan_.target = mounts.front().target;
    plan_.mount_id = mounts.front().id;
  }

  /// How an earlier mount is attached.
  [[nodiscard]] Result<MountWay> way_of(Record const& record) const {
    auto const front_end = record.attach.front_end;
    if (front_end == RecordFrontEnd::netlink && record.attach.index) return MountWay::netlink;
    if (front_end != RecordFrontEnd::fuse || !earlier_->replace) {
      return fail(Errc::unsupported, earlier_->name + ": such a mount ends with its daemon");
    }
    auto const path = control_path(earlier_->journal, earlier_->name);
    EROFS_OCI_TRY_ASSIGN(auto const answer, ask_control(path, "status"));
    auto const way = erofs_oci::parse_mount_way(way_in_report(answer));
    if (way && !is_nbd(*way)) return *way;
    return fail(Errc::unsupported, earlier_->name + ": it cannot be handed over");
  }

  // --- the supervisor ----------------------------------------------------------------------------

  Result<MountEnd> keep() {
    plan_.device.dead_connection_timeout = options_.keep.dead_timeout;
    plan_.device.backend = id_;
    plan_.supervision = {
        .suspect_idle_after = 1500ms,  // a worker gives a sign a second
        .first_pause = 20ms,
        .healthy_after = 200ms,
        .give_up_after = std::max<std::chrono::milliseconds>(options_.keep.dead_timeout, 10s)};
    if (log_.fd() >= 0) plan_.keep.push_back(log_.fd());
    supervisor_ = std::make_unique<MountSupervisor>(plan_, hooks());
    return supervisor_->run();
  }

  [[nodiscard]] MountHooks hooks() {
    MountHooks hooks;
    hooks.work = [this](WorkerSeat seat) { return work(std::move(seat)); };
    hooks.opened = [this](WorkerImage& image) { return on_opened(image); };
    // A process that finds the device finds the record.
    hooks.attaching = [this] {
      if (plan_.way == MountWay::netlink) write_record();
    };
    hooks.attached = [this] { on_attached(); };
    hooks.take = [this] { return ask_predecessor(); };
    hooks.announce = [this](std::string const& device) { announce(device); };
    hooks.settled = [this](std::string const& warning) { settle(warning); };
    hooks.unmount_others = [this](UnmountBusy busy) { return unmount_others(busy); };
    hooks.let_go = [this] {
      control_ = {};
      metrics_ = {};
      journal_ = MountJournal();  // unlocks it
    };
    hooks.started = [this] { earlier_counts_ = counts(), counts_ = {}; };
    hooks.counted = [this](std::string const& text) {
      counts_ = WorkerCounts::parse(text);
      note_mismatch();
    };
    hooks.log = [this](MountSeverity severity, std::string const& text) {
      constexpr std::array levels{Level::error, Level::warning, Level::info};
      log_.say(levels.at(static_cast<std::size_t>(severity)), text);
    };
    hooks.watch = [this](std::vector<pollfd>& fds) { watch(fds); };
    hooks.act = [this](std::span<pollfd const> fds) { act(fds); };
    return hooks;
  }

  /// In a worker.
  int work(WorkerSeat seat) {
    auto const* const signals = seat.is_thread ? signals_.get() : nullptr;
    return run_worker({options_, record_, plan_.way, supervisor_->plan().target, std::move(seat),
                       signals, earlier_counts_.read},
                      log_);
  }

  enum Place : std::size_t { at_signals, at_mounter, at_timer, own_places };

  void watch(std::vector<pollfd>& fds) const {
    auto const worker_hears = plan_.in_process && !record_;
    fds.push_back({worker_hears ? -1 : signals_->fd(), POLLIN, 0});
    fds.push_back({mounter_.fd(), POLLIN, 0});
    fds.push_back({timer_.fd(), POLLIN, 0});
    control_.watch(fds);
    metrics_.watch(fds);
  }

  void act(std::span<pollfd const> fds) {
    auto const control = fds.subspan(own_places, control_.count());
    auto const metrics = fds.subspan(own_places + control.size(), metrics_.count());
    control_.act(control);
    metrics_.act(metrics);
    if (fds[at_mounter].revents != 0) hear_mounter();
    if (fds[at_signals].revents != 0) {
      log_.say(Level::info, "signal " + std::to_string(signals_->wait()));
      find_place();
      supervisor_->interrupt();
    }
    if (fds[at_timer].revents != 0) on_timer();
  }

  /// The first worker's record, and how the image is attached.
  Result<void> on_opened(WorkerImage& image) {
    if (!record_) {
      EROFS_OCI_TRY_ASSIGN(record_, erofs_oci::parse_record(erofs_oci::as_text(image.details)));
      record_->attach = {.front_end = front_end_of(plan_.way),
                         .index = plan_.index,
                         .backend = id_,
                         .dead_connection_timeout = options_.keep.dead_timeout,
                         .read_ahead = options_.image.readahead};
      record_->mount_point = plan_.target;
      if (auto const me = erofs_oci::this_process()) record_->daemon = *me;
    }
    if (!earlier_) {
      EROFS_OCI_TRY(check_verity(table(), options_.image));
    }
    auto const size = record_->image.device_size;
    zeros_ = size - std::min(size, image.zeros_from);
    if (is_foreign(*record_)) {  // made larger than what is on it
      EROFS_OCI_TRY_ASSIGN(image.size, nbd_device_bytes(*record_->attach.index));
    }
    return {};
  }

  /// What the kernel is to check by; empty: nothing.
  [[nodiscard]] std::optional<erofs_oci::VerityTable> table() const {
    return verity_table(record_->image, options_.image.verity);
  }

  /// The front end is this process's: the record says so.
  void on_attached() {
    if (!replaces()) lock_memory(log_);  // else ask_predecessor() has
    if (replaces() && !take_record()) return;
    if (auto const* const device = supervisor_->device()) {
      record_->attach.index = device->index();
      return note_process("nbd" + std::to_string(device->index()));
    }
    if (earlier_) return note_process(earlier_->name);
    struct stat status{};
    if (::stat(plan_.target.c_str(), &status) == 0) {
      note_process("fuse" + std::to_string(status.st_dev));
    }
  }

  void announce(std::string const& device) {
    if (auto const ok = leave_directory(); !ok) return supervisor_->mounting_failed(ok.error());
    auto const kind = device.empty() ? MountMessage::Kind::mounted : MountMessage::Kind::device;
    auto const text = device.empty() ? plan_.target : device + '\n' + table_text(table());
    mounter_.tell({kind, text, {}, {}});
  }

  /// Keeps no directory of a user busy.
  [[nodiscard]] Result<void> leave_directory() const {
    if (life_ == Life::daemon && ::chdir("/") != 0) return fail_errno(errno, "/");
    return {};
  }

  void hear_mounter() {
    auto const message = mounter_.receive();
    if (message && message->kind == MountMessage::Kind::mounted) {
      return supervisor_->mounted(message->text);
    }
    if (!settled_) {
      supervisor_->mounting_failed(
          message && message->kind == MountMessage::Kind::failed
              ? message->error
              : Error{make_error_code(Errc::unavailable), "the mounting process has ended", {}});
    }
    mounter_.close();
  }

  /// It is mounted, and no process waits any more.
  void settle(std::string const& warning) {
    settled_ = true;
    if (earlier_) warn_of(leave_directory());
    if (earlier_ && earlier_->replace) warn_of(open_metrics());  // until now it had the address
    if (plan_.way == MountWay::ioctl) start_timer();
    auto const& target = supervisor_->plan().target;
    record_->mount_point = target;
    write_record();
    auto const table = read_mount_table();
    if (auto const entry = table ? find_target(*table, target) : std::nullopt) {
      socket_ = listen_as_daemon(entry->device);
      file_system_ = entry->device;
      is_checked_ = is_verity_source(entry->source);
    }
    if (auto const& device = options_.image.in_place_of; device && !device->note.empty()) {
      log_.say(Level::notice, device->note);
    }
    if (!how_.empty()) {
      auto const is_choice = options_.mount.attach == Attach::automatic;
      log_.say(is_choice ? Level::notice : Level::info, "mounted by " + how_);
    }
    mounter_.tell({MountMessage::Kind::settled, warning, {}, {}});
    mounter_.close();
    if (life_ == Life::daemon) {
      if (!plan_.in_process) supervisor_->tell_worker({MountMessage::Kind::settled, {}, {}, {}});
      leave_streams(log_);
      return;
    }
    if (!warning.empty()) log_.say(Level::warning, warning);
    notify_ready(log_);
  }

  /// The kernel does not end a device of ioctl(2) with its last mount.
  void start_timer() {
    timer_ = erofs_oci::Timer::open().value_or(erofs_oci::Timer());
    static_cast<void>(timer_.every(std::chrono::milliseconds(500)));
  }

  void on_timer() {
    timer_.clear();
    auto const* const device = supervisor_->device();
    if (device == nullptr) return;
    auto const table = read_mount_table();
    if (table && is_source(*table, device->path())) return;
    // Another mount namespace may have it still, which only an attempt to open it alone can tell.
    supervisor_->check_use();
  }

  /// Of what fails without ending the mount.
  void warn_of(Result<void> const& done, std::string const& what = {}) const {
    if (!done) log_.say(Level::warning, what + done.error().message());
  }

  // --- other mounts of the file system -----------------------------------------------------------

  /// The mounts of it that this process can see.
  [[nodiscard]] std::vector<MountEntry> mounts() const {
    if (!file_system_) return {};
    auto const table = read_mount_table();
    return table ? mounts_of(*table, *file_system_) : std::vector<MountEntry>();
  }

  /// Finds the mount where it is now; if it has ended, another one of the file system.
  void find_place() {
    auto const all = mounts();
    auto const same =
        std::ranges::find(all, supervisor_->plan().mount_id.value_or(0), &MountEntry::id);
    if (all.empty()) return;
    auto const& place = same != all.end() ? *same : all.front();
    supervisor_->found_at(place.target, place.id);
  }

  /// Unmounts all but the one that the supervisor unmounts. What something else is mounted over
  /// stays.
  [[nodiscard]] bool unmount_others(UnmountBusy busy) const {
    auto all_free = true;
    for (auto const& entry : mounts()) {
      if (entry.id == supervisor_->plan().mount_id) continue;
      auto const done = erofs_oci::unmount(entry.target, busy, "fusermount3", entry.id);
      all_free = all_free && (done || done.error().code != std::errc::device_or_resource_busy);
    }
    return all_free;
  }

  // --- an earlier process ------------------------------------------------------------------------

  /// Whether another process serves the mount until this one is ready to.
  [[nodiscard]] bool replaces() const noexcept {
    return earlier_ && earlier_->replace && !settled_;
  }

  /// Asks the process that serves the mount for its front end; it has answered all requests then.
  Result<MountMessage> ask_predecessor() {
    // This process's program may lie on the mount, which no process serves for a moment.
    lock_memory(log_);
    auto const path = control_path(earlier_->journal, earlier_->name);
    EROFS_OCI_TRY_ASSIGN(auto asked, send_question(path, "hand over", 30s));
    predecessor_.emplace(std::move(asked));
    // Longer than it takes to answer what the kernel has asked; meanwhile it serves.
    EROFS_OCI_TRY_ASSIGN(auto message, predecessor_->receive_within(90s), path);
    return message;
  }

  /// The record, once the process before has unlocked it; yields whether there is one.
  bool take_record() {
    predecessor_->tell({MountMessage::Kind::taken, {}, {}, {}});
    predecessor_.reset();
    auto const journal = erofs_oci::Journal::open(earlier_->journal);
    auto const locked = journal ? lock_record(*journal, 2s) : Result<void>(fail(journal.error()));
    warn_of(locked, "no record of the mount: ");
    return locked.has_value();
  }

  /// Takes the record of an earlier mount, whose lock another process may hold for that long.
  Result<void> lock_record(erofs_oci::Journal const& journal, std::chrono::seconds patience) {
    EROFS_OCI_TRY_ASSIGN(auto entry, journal.acquire(earlier_->name, patience));
    journal_ = MountJournal::resume(earlier_->journal, std::move(entry));
    return {};
  }

  // --- the record --------------------------------------------------------------------------------

  /// Writes down, under that name, that this process keeps the mount; answers questions about it.
  void note_process(std::string const& name) {
    if (auto const me = erofs_oci::this_process()) record_->daemon = *me;
    write_record();
    warn_of(journal_.rename(name), "cannot rename the mount's record: ");
    if (!journal_.keeps()) return;
    auto control = listen_control(
        control_path(journal_.directory(), journal_.name()),
        [this](auto question, UniqueFd& client) { return answer(question, client); });
    if (!control) return log_.say(Level::info, "no status: " + control.error().message());
    control_ = *std::move(control);
  }

  /// Wrong bytes were found: no later worker may serve the layer either.
  void note_mismatch() {
    if (counts_.mismatch.empty() || !record_ || !record_->image.mismatch.empty()) return;
    record_->image.mismatch = counts_.mismatch;
    write_record();
  }

  void write_record() { warn_of(journal_.write(*record_), "no record of the mount: "); }

  /// Removes what was written about the mount.
  void remove_record() {
    remove_index();
    control_ = {};
    journal_.remove(log_);
  }

  void remove_index() const {
    std::error_code ignored;
    auto const& store = options_.image.own_store;
    if (!store.empty()) std::filesystem::remove_all(store, ignored);
  }

  void give_up() {
    auto const text = "given up: " + supervisor_->last_error();
    auto const* const device = supervisor_->device();
    if (plan_.way == MountWay::netlink && device != nullptr && device->is_connected()) {
      log_.say(Level::error, text + "; `mount-oci reattach " + device->path() +
                                 "` serves it again, for " +
                                 std::to_string(options_.keep.dead_timeout.count()) + " s");
      return;
    }
    auto const& target = supervisor_->plan().target;
    log_.say(Level::error, text + "; `mount-oci umount " + target + "` removes it");
    if (!is_nbd(plan_.way)) {
      remove_index();
      journal_.remove(log_);
    }
  }

  // --- questions ---------------------------------------------------------------------------------

  [[nodiscard]] std::string answer(std::string_view question, UniqueFd& client) {
    if (question == "status") return report_json(report());
    if (question == share_question) {
      return share_answer(settled_ ? options_.mount.share_key : std::string());
    }
    if (question != "hand over") return R"({"error":"no such question"})";
    if (supervisor_->hand_over(client)) return {};
    return R"({"error":"the mount is being set up, ended or handed over"})";
  }

  /// All workers' together; what is cached, of the present one.
  [[nodiscard]] WorkerCounts counts() const {
    auto counts = counts_;
    counts.reads += earlier_counts_.reads;
    counts.bytes += earlier_counts_.bytes;
    counts.errors += earlier_counts_.errors;
    counts.disk.hits += earlier_counts_.disk.hits;
    counts.disk.hit_bytes += earlier_counts_.disk.hit_bytes;
    counts.disk.misses += earlier_counts_.disk.misses;
    counts.disk.miss_bytes += earlier_counts_.disk.miss_bytes;
    counts.hedges += earlier_counts_.hedges;
    counts.start.fetched += earlier_counts_.start.fetched;
    counts.start.used += earlier_counts_.start.used;
    if (counts.served.count == 0) counts.served = earlier_counts_.served;
    if (counts.layers.empty()) counts.layers = earlier_counts_.layers;
    if (counts.read.empty()) counts.read = earlier_counts_.read;
    if (record_) counts.mismatch = record_->image.mismatch;
    return counts;
  }

  /// Bytes of the device that come from this machine: metadata, Merkle tree, zeros.
  [[nodiscard]] std::uint64_t local_bytes() const {
    auto const& image = record_->image;
    auto const tree =
        image.verity_data != 0 ? image.device_size - image.verity_data - zeros_ : std::uint64_t{0};
    return record_->known->length + tree + zeros_;
  }

  [[nodiscard]] MountReport report() const {
    auto const& worker = supervisor_->worker();
    auto const* const device = supervisor_->device();
    MountReport report{.way = plan_.way,
                       .target = supervisor_->plan().target,
                       .device = device != nullptr ? device->path() : "",
                       .worker = worker.pid(),
                       .worker_alive = worker.fd() >= 0,
                       .restarts = worker.restarts(),
                       .last_error = supervisor_->last_error(),
                       .counts = counts(),
                       .size = record_ ? record_->image.device_size : 0,
                       .metadata = record_ && record_->known ? local_bytes() : 0,
                       .reads = {},
                       .in_flight = device != nullptr ? device->relay().in_flight() : 0,
                       .verity = record_ && is_checked_ ? root_text(record_->image) : ""};
    report.counts.cached = std::min(report.counts.cached, report.size);  // held in whole chunks
    if (device != nullptr) report.reads = device->relay().counters();
    return report;
  }

  Options options_;
  MountChannel mounter_;  // closed once the mount stands
  Life life_;
  std::optional<EarlierMount> earlier_;
  Log& log_;
  std::unique_ptr<Signals> signals_;
  MountPlan plan_;
  std::string id_;                // what the kernel keeps as the device's backend
  std::optional<Record> record_;  // empty until the first worker has opened the image
  MountJournal journal_;
  ClientSockets control_;
  UniqueFd socket_;  // whose end tells others that this process has ended
  ClientSockets metrics_;
  erofs_oci::Timer timer_;
  std::optional<dev_t> file_system_;  // that is mounted, once it is
  std::optional<MountChannel> predecessor_;
  std::uint64_t zeros_ = 0;      // bytes at the device's end
  WorkerCounts counts_;          // of the present worker
  WorkerCounts earlier_counts_;  // of those before
  bool is_checked_ = false;      // by dm-verity
  bool settled_ = false;         // mounted, and no process waits
  std::string how_;              // a new mount's way, and why that one
  std::unique_ptr<MountSupervisor> supervisor_;
};

}  // namespace

Result<void> supervise(Options options, MountChannel mounter, Life life,
                       std::optional<EarlierMount> earlier, Log& log) {
  if (life == Life::daemon) {
    std::vector<int> keep{mounter.fd()};
    if (log.fd() >= 0) keep.push_back(log.fd());
    if (auto const ok = leave_caller(std::move(keep)); !ok) return ok;
  }
  RecordedMount mount(std::move(options), std::move(mounter), life, std::move(earlier), log);
  return mount.run();
}

}  // namespace mount_oci
