// SPDX-License-Identifier: Apache-2.0
#include "supervise.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/fuse/choose_mount.hpp>
#include <erofs_oci/fuse/inflight.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/recovery/journal.hpp>
#include <erofs_oci/recovery/record.hpp>
#include <erofs_oci/recovery/supervisor.hpp>

#include "apart.hpp"
#include "choose_way.hpp"
#include "control.hpp"
#include "daemon.hpp"
#include "daemon_socket.hpp"
#include "fuse_handover.hpp"
#include "kept_device.hpp"
#include "memory_file.hpp"
#include "metrics.hpp"
#include "mount_journal.hpp"
#include "mount_report.hpp"
#include "mount_table.hpp"
#include "same_image.hpp"
#include "upstream_mount.hpp"
#include "worker_process.hpp"

namespace mount_oci {
namespace {

using erofs_oci::Decision;
using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::MountWay;
using erofs_oci::Record;
using erofs_oci::RecordFrontEnd;
using erofs_oci::SupervisedDaemon;
using erofs_oci::Supervision;
using erofs_oci::nbd::Wakeup;
using namespace std::chrono_literals;

/// A name that nothing else has: "m" and 16 hexadecimal digits.
std::string new_identifier() {
  std::random_device random;
  constexpr std::string_view digits = "0123456789abcdef";
  std::string name = "m";
  for (int i = 0; i < 16; ++i) name += digits[random() % digits.size()];
  return name;
}

bool is_nbd(MountWay way) {
  return way == MountWay::netlink || way == MountWay::ioctl;
}

RecordFrontEnd front_end_of(MountWay way) {
  if (way == MountWay::netlink) return RecordFrontEnd::netlink;
  return way == MountWay::ioctl ? RecordFrontEnd::ioctl : RecordFrontEnd::fuse;
}

/// Keeps one mount.
class MountKeeper {
 public:
  MountKeeper(Options options, Link link, Life life, std::optional<EarlierMount> earlier, Log& log)
      : options_(std::move(options)),
        mounter_(std::move(link)),
        life_(life),
        earlier_(std::move(earlier)),
        log_(log) {}

  Result<void> run() {
    auto signals = Signals::take();
    if (!signals) return fail(std::move(signals).error());
    signals_ = std::make_unique<Signals>(*std::move(signals));
    auto worker = WorkerProcess::make();
    if (!worker) return fail(std::move(worker).error());
    worker_ = std::make_unique<WorkerProcess>(*std::move(worker));
    auto stop = Wakeup::open();
    if (!stop) return fail(std::move(stop).error());
    stop_ = std::make_unique<Wakeup>(*std::move(stop));
    auto done = begin();
    if (done) done = keep();
    if (!done) clean_up_failure(done.error());
    return done;
  }

 private:
  // --- the first worker --------------------------------------------------------------------

  Result<void> begin() {
    hide_memory();
    // The working directory will be another one for the workers to come.
    auto& password = options_.image.password_file;
    if (!password.empty()) password = std::filesystem::absolute(password).string();
    auto const ready = earlier_ ? take_over() : prepare();
    if (!ready) return ready;
    if (!replaces()) {
      if (auto const ok = open_metrics(); !ok) return ok;
    }
    auto const& directory = earlier_ ? earlier_->journal : journal_.directory();
    if (!directory.empty()) options_.image.own_store = index_directory(directory, id_);
    auto daemon = start_worker();
    if (!daemon) return fail(std::move(daemon).error());
    first_ = *std::move(daemon);
    while (!serving_) {
      std::vector<pollfd> fds;
      watch(fds);
      if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR)
        return fail_errno(errno, "poll");
      act(fds);
      if (failure_) return fail(*failure_);
      if (worker_->fd() < 0 && !serving_) {
        return fail(Errc::unavailable, "the process that reads the image has ended");
      }
    }
    if (life_ == Life::daemon && ::chdir("/") != 0) return fail_errno(errno, "/");
    return {};
  }

  Result<void> open_metrics() {
    if (options_.keep.metrics.empty()) return {};
    auto metrics =
        MetricsSocket::listen(options_.keep.metrics, [this] { return report_metrics(report()); });
    if (!metrics) return fail(std::move(metrics).error());
    metrics_ = *std::move(metrics);
    return {};
  }

  /// For a new mount.
  Result<void> prepare() {
    auto const way = choose_way(options_.mount.attach, {}, log_);
    if (!way) return fail(way.error());
    way_ = *way;
    id_ = new_identifier();
    if (!is_nbd(way_)) {
      auto target = real_path(options_.mount.target);
      if (!target) return fail(std::move(target).error());
      target_ = *std::move(target);
    }
    journal_ = MountJournal::begin(options_, id_, log_);
    return {};
  }

  /// For an earlier one, whose daemon must be gone: it holds the record's lock while it lives.
  Result<void> take_over() {
    if (options_.image.in_place_of) return take_from_upstream(*options_.image.in_place_of);
    auto const journal = erofs_oci::Journal::open(earlier_->journal);
    if (!journal) return fail(journal.error());
    std::optional<erofs_oci::JournalEntry> entry;
    if (!earlier_->replace) {
      auto taken = journal->acquire(earlier_->name, 2s);
      if (!taken) return fail(std::move(taken).error());
      entry = *std::move(taken);
    }
    auto record = journal->read(earlier_->name);
    if (!record) return fail(std::move(record).error());
    auto const way = way_of(*record);
    if (!way) return fail(way.error());
    way_ = *way;
    record_ = *std::move(record);
    if (entry) journal_ = MountJournal::resume(earlier_->journal, *std::move(entry));
    reattaches_ = true;
    id_ = record_->attach.backend;
    target_ = record_->mount_point;
    options_.keep.dead_timeout = record_->attach.dead_connection_timeout;
    return {};
  }

  /// For another tool's, of which there is no record of ours yet.
  Result<void> take_from_upstream(ForeignDevice const& device) {
    auto const journal = erofs_oci::Journal::open(earlier_->journal);
    if (!journal) return fail(journal.error());
    auto entry = journal->acquire(earlier_->name, 2s);
    if (!entry) return fail(std::move(entry).error());
    journal_ = MountJournal::resume(earlier_->journal, *std::move(entry));
    reattaches_ = true;
    way_ = MountWay::netlink;
    id_ = device.backend;
    target_ = device.mount_point;
    options_.keep.dead_timeout = upstream_dead_timeout;  // which stays as it is
    return {};
  }

  /// How an earlier mount is attached.
  [[nodiscard]] Result<MountWay> way_of(Record const& record) const {
    auto const front_end = record.attach.front_end;
    if (front_end == RecordFrontEnd::netlink && record.attach.index) return MountWay::netlink;
    if (front_end != RecordFrontEnd::fuse || !earlier_->replace) {
      return fail(Errc::unsupported, earlier_->name + ": such a mount ends with its daemon");
    }
    auto const path = control_path(earlier_->journal, earlier_->name);
    auto const answer = ask_control(path, "status");
    if (!answer) return fail(answer.error());
    for (auto const way : {MountWay::fuse_file, MountWay::fuse_tree}) {
      if (way_in_report(*answer) == erofs_oci::name_of(way)) return way;
    }
    return fail(Errc::unsupported, earlier_->name + ": it cannot be handed over");
  }

  Result<SupervisedDaemon> start_worker() {
    return worker_->start(options_, record_, way_, target_, log_);
  }

  // --- after the first worker ----------------------------------------------------------------

  Result<void> keep() {
    for (;;) {
      auto const ok = supervise();
      if (!ok || !successor_ || device_) return ok;
      if (hand_connection_over()) return {};
      stop_->clear();
    }
  }

  Result<void> supervise() {
    erofs_oci::Supervisor supervisor(
        {.start = [this] { return restart(); },
         .ended = [this](erofs_oci::ProcessExit const& exit) { on_worker_end(exit); },
         .verify = is_nbd(way_) ? std::function<Result<UniqueFd>()>([this] { return verify(); })
                                : nullptr,
         .asked = device_ ? std::function<bool()>([this] { return has_reads(); }) : nullptr,
         .watch = [this](std::vector<pollfd>& fds) { watch(fds); },
         .act = [this](std::span<pollfd const> fds) { act(fds); },
         .note = [this](Decision decision,
                        Supervision<> const& machine) { note(decision, machine); }},
        {.suspect_idle_after = 1500ms,  // a worker gives a sign a second
         .first_pause = 20ms,
         .healthy_after = 200ms,
         .give_up_after = std::max<std::chrono::milliseconds>(options_.keep.dead_timeout, 10s)});
    auto const end = supervisor.run(stop_->fd(), std::exchange(first_, {}));
    if (!end) return fail(end.error());
    if (*end == erofs_oci::SupervisionState::given_up) {
      give_up(supervisor.reason());
      return fail(Errc::unavailable, supervisor.reason());
    }
    if (successor_ && fuse_) return {};
    clean_up();
    if (failure_) return fail(*failure_);
    return {};
  }

  /// Whether the kernel waits for the worker.
  [[nodiscard]] bool has_reads() const { return device_ && device_->relay().in_flight() != 0; }

  Result<SupervisedDaemon> restart() {
    if (device_) {
      device_->drop_reader(worker_->end());
      complain();
    }
    connected_ = false;
    return start_worker();
  }

  /// Tells what the relay has found, once.
  void complain() {
    auto const& text = device_->relay().complaint();
    if (text == complaint_) return;
    last_error_ = complaint_ = text;
    log_.say(Level::error, text);
  }

  /// Begins to compare what the new worker reads; see SupervisorHooks::verify.
  Result<UniqueFd> verify() {
    std::array<int, 2> fds{};
    if (::pipe2(fds.data(), O_CLOEXEC | O_NONBLOCK) != 0) return fail_errno(errno, "pipe");
    UniqueFd ours(fds[1]);
    auto const shared = std::make_shared<UniqueFd>(std::move(ours));
    device_->verify_reader([this, shared](Result<void> const& ok) {
      if (!ok) log_.say(Level::error, "worker: " + ok.error().message());
      auto const unknown = !ok && ok.error().code != Errc::mismatch;
      char const verdict = ok ? '1' : '0';
      if (!unknown) [[maybe_unused]]
        auto const n = ::write(shared->get(), &verdict, 1);
    });
    return UniqueFd(fds[0]);
  }

  void on_worker_end(erofs_oci::ProcessExit const& exit) {
    worker_->note_end(exit);
    if (!fuse_ || worker_->end() == erofs_oci::EngineEnd::killed) return;
    UniqueFd copy(::fcntl(fuse_->inflight.get(), F_DUPFD_CLOEXEC, 3));
    auto const inflight = erofs_oci::FuseInflight::map(std::move(copy));
    if (inflight) inflight->note_crash();
  }

  void note(Decision decision, Supervision<> const& machine) {
    using enum Decision;
    auto const& why = machine.reason();
    switch (decision) {
      case start: log_.say(Level::warning, "worker replaced: " + why); break;
      case kill:
        log_.say(Level::error, "worker killed: " + why);
        worker_->note_hang();
        break;
      case pause: log_.say(Level::info, "worker: " + why + "; the next one starts soon"); break;
      default: break;
    }
    if (decision == start || decision == kill) last_error_ = why;
  }

  // --- the poll(2) loop ------------------------------------------------------------------------

  void watch(std::vector<pollfd>& fds) const {
    fds.push_back({signals_->fd(), POLLIN, 0});
    fds.push_back({mounter_.fd(), POLLIN, 0});
    fds.push_back({worker_->fd(), POLLIN, 0});
    fds.push_back({timer_.get(), POLLIN, 0});
    fds.push_back({apart_.fd(), POLLIN, 0});
    fds.push_back({worker_->child_fd(), POLLIN, 0});
    // A worker hears of its end by itself; and looking would wake this process for each request.
    fds.push_back({fuse_ && !connected_ ? fuse_->device.get() : -1, 0, 0});
    control_.watch(fds);
    metrics_.watch(fds);
    if (device_) device_->watch(fds);
  }

  void act(std::span<pollfd const> fds) {
    constexpr std::size_t own = 7;
    auto const control = fds.subspan(own, control_.count());
    auto const metrics = fds.subspan(own + control.size(), metrics_.count());
    // The device first: what follows may make another one.
    if (device_) device_->act(fds.subspan(own + control.size() + metrics.size()));
    control_.act(control);
    metrics_.act(metrics);
    if (fds[2].revents != 0) hear_worker();
    if (fds[1].revents != 0) hear_mounter();
    if (fds[0].revents != 0) on_signal(signals_->wait());
    if (fds[3].revents != 0) on_timer();
    if (fds[4].revents != 0) apart_.finish();
    if (fds[5].revents != 0) worker_->let_go_on(log_);
    if (fds[6].revents != 0) stop_->notify();  // unmounted, while there was no worker
    if (device_ && device_->ended() && !ending_) on_device_end();
    if (successor_ && device_ && device_->is_idle()) hand_device_over();
  }

  void hear_worker() {
    auto message = worker_->receive();
    if (!message) return;
    switch (message->kind) {
      case Message::Kind::opened: return check(on_opened(*message));
      case Message::Kind::connected: return check(on_connected(*message));
      case Message::Kind::failed:
        last_error_ = message->error.message();
        if (!serving_) failure_ = message->error;
        log_.say(serving_ ? Level::error : Level::info, "worker: " + last_error_);
        return;
      case Message::Kind::counts: worker_->note_counts(WorkerCounts::parse(message->text)); return;
      case Message::Kind::trouble: last_error_ = message->text; return;
      default: return;
    }
  }

  /// A failure ends the first worker's mount, or this worker.
  void check(Result<void> const& ok) {
    if (ok) return;
    if (!serving_) {
      failure_ = ok.error();
      return;
    }
    log_.say(Level::error, "worker: " + ok.error().message());
    worker_->kill();
  }

  Result<void> on_opened(Message& message) {
    if (message.fds.size() != 1) return fail(Errc::protocol, "worker: no record");
    auto const bytes = from_memory_file(message.fds[0]);
    if (!bytes) return fail(bytes.error());
    auto record = erofs_oci::parse_record(erofs_oci::as_text(*bytes));
    if (!record) return fail(std::move(record).error());
    if (!record_) note_attach(*std::move(record));
    if (!is_nbd(way_)) return send_connection();
    if (!device_) {
      auto const zeros_from = std::strtoull(message.text.c_str(), nullptr, 10);
      if (auto const ok = attach(zeros_from); !ok) return ok;
    }
    auto port = device_->next_reader();
    if (!port) return fail(std::move(port).error());
    Message answer{Message::Kind::port, {}, {}, {}};
    answer.fds.push_back(std::move(port->channel));
    answer.fds.push_back(std::move(port->arena));
    worker_->send(answer);
    if (serving_) return {};  // the supervisor has it verified
    device_->verify_reader([this](Result<void> const& ok) { ok ? on_first_service() : check(ok); });
    return {};
  }

  /// The connection that is to be served, if it is mounted already.
  Result<void> send_connection() {
    if (replaces()) {
      if (auto const ok = take_connection(); !ok) return ok;
    }
    if (!fuse_) {
      worker_->send({Message::Kind::port, {}, {}, {}});
      return {};
    }
    auto const message = to_message(Message::Kind::port, *fuse_);
    if (!message) return fail(message.error());
    worker_->send(*message);
    return {};
  }

  /// The first worker's record, and how the image is attached.
  void note_attach(Record record) {
    record_ = std::move(record);
    auto& attach = record_->attach;
    attach = {};
    attach.front_end = front_end_of(way_);
    attach.backend = id_;
    if (options_.image.in_place_of) attach.index = options_.image.in_place_of->index;
    attach.dead_connection_timeout = options_.keep.dead_timeout;
    attach.read_ahead = options_.image.readahead;
    record_->mount_point = target_;
    if (auto const me = erofs_oci::this_process()) record_->daemon = *me;
  }

  Result<void> attach(std::uint64_t zeros_from) {
    erofs_oci::Export served;
    served.size = record_->image.device_size;
    if (is_foreign(*record_)) {  // made larger than what is on it
      auto const bytes = nbd_device_bytes(*record_->attach.index);
      if (!bytes) return fail(bytes.error());
      served.size = *bytes;
    }
    served.zeros_from = zeros_from;
    if (replaces()) {
      auto beside = KeptDevice::beside(connect(), std::move(served));
      if (!beside) return fail(std::move(beside).error());
      device_ = std::make_unique<KeptDevice>(*std::move(beside));
      return {};
    }
    if (way_ == MountWay::netlink) write_record();  // whoever finds the device finds the record
    auto opened = KeptDevice::open(connect(), std::move(served));
    if (!opened) return fail(std::move(opened).error());
    device_ = std::make_unique<KeptDevice>(*std::move(opened));
    note_device();
    return {};
  }

  /// Whether another process serves the device until we are ready to.
  [[nodiscard]] bool replaces() const noexcept {
    return earlier_ && earlier_->replace && !serving_;
  }

  [[nodiscard]] KeptDevice::Connect connect() const {
    erofs_oci::NbdDeviceOptions device;
    device.dead_connection_timeout = record_->attach.dead_connection_timeout;
    device.backend = id_;
    if (way_ == MountWay::ioctl) return erofs_oci::IoctlConnect(device);
    if (!reattaches_) return erofs_oci::NetlinkConnect(device);
    return erofs_oci::NetlinkConnect::to_device(*record_->attach.index, device);
  }

  void note_device() {
    record_->attach.index = device_->index();
    note_process("nbd" + std::to_string(device_->index()));
  }

  /// Writes down, under that name, that this process keeps the mount.
  void note_process(std::string const& name) {
    if (auto const me = erofs_oci::this_process()) record_->daemon = *me;
    write_record();
    name_record(name);
  }

  /// The worker is ready: asks the process that serves now for what it serves on. It has answered
  /// all that it was asked by then.
  Result<Message> take() {
    auto const path = control_path(earlier_->journal, earlier_->name);
    auto asked = send_question(path, "hand over", 30s);
    if (!asked) return fail(std::move(asked).error());
    predecessor_.emplace(*std::move(asked));
    auto message = predecessor_->receive();
    if (!message) return fail(std::move(message).error(), path);
    return message;
  }

  Result<void> take_sockets() {
    auto message = take();
    if (!message) return fail(std::move(message).error());
    if (auto const ok = device_->adopt(*std::move(message)); !ok) return ok;
    if (take_record()) note_device();
    return {};
  }

  Result<void> take_connection() {
    auto message = take();
    if (!message) return fail(std::move(message).error());
    auto connection = connection_of(*std::move(message));
    if (!connection) return fail(std::move(connection).error());
    fuse_ = *std::move(connection);
    return {};
  }

  /// The record, too, once the process before is done with it; yields whether there is one.
  bool take_record() {
    predecessor_->send({Message::Kind::taken, {}, {}, {}});
    predecessor_.reset();
    auto const journal = erofs_oci::Journal::open(earlier_->journal);
    auto entry = journal ? journal->acquire(earlier_->name, 10s)
                         : Result<erofs_oci::JournalEntry>(fail(journal.error()));
    if (!entry) {
      log_.say(Level::warning, "no record of the mount: " + entry.error().message());
      return false;
    }
    journal_ = MountJournal::resume(earlier_->journal, *std::move(entry));
    return true;
  }

  void write_record() {
    if (auto const ok = journal_.write(*record_); !ok) {
      log_.say(Level::warning, "no record of the mount: " + ok.error().message());
    }
  }

  void name_record(std::string const& name) {
    if (auto const ok = journal_.rename(name); !ok) {
      log_.say(Level::warning, "the mount's record keeps its first name: " + ok.error().message());
    }
    if (!journal_.keeps()) return;
    auto control = ControlSocket::listen(
        control_path(journal_.directory(), journal_.name()),
        [this](auto question, UniqueFd& client) { return answer(question, client); });
    if (!control) return log_.say(Level::info, "no status: " + control.error().message());
    control_ = *std::move(control);
  }

  void on_first_service() {
    lock_memory(log_);  // before anything waits for us: this program may lie on the mount
    if (replaces()) {
      if (auto const ok = take_sockets(); !ok) return check(ok);
    }
    serving_ = true;
    if (reattaches_) return settle();
    mounter_.send({Message::Kind::device, device_->path(), {}, {}});
  }

  Result<void> on_connected(Message& message) {
    auto connection = connection_of(std::move(message));
    if (!connection) return fail(std::move(connection).error(), "worker");
    fuse_ = *std::move(connection);
    connected_ = true;
    if (serving_) return {};
    lock_memory(log_);
    if (replaces()) {
      auto const has_record = take_record();
      serving_ = true;
      if (has_record) note_process(earlier_->name);
      settle();
      return {};
    }
    serving_ = true;
    struct stat status{};
    if (::stat(target_.c_str(), &status) == 0) note_process("fuse" + std::to_string(status.st_dev));
    mounter_.send({Message::Kind::mounted, target_, {}, {}});
    return {};
  }

  void hear_mounter() {
    auto const message = mounter_.receive();
    if (message && message->kind == Message::Kind::mounted) {
      target_ = message->text;
      return settle();
    }
    if (!settled_) {
      failure_ =
          message && message->kind == Message::Kind::failed
              ? message->error
              : Error{make_error_code(Errc::unavailable), "the mounting process has ended", {}};
      force_end();
    }
    mounter_.close();
  }

  /// It is mounted, and nobody waits any more.
  void settle() {
    settled_ = true;
    if (earlier_ && earlier_->replace) {  // the process before had the address
      if (auto const ok = open_metrics(); !ok) log_.say(Level::warning, ok.error().message());
    }
    auto const warning = device_ ? device_->settle() : std::string();
    if (way_ == MountWay::ioctl) start_timer();
    record_->mount_point = target_;
    write_record();
    auto const table = read_mount_table();
    if (auto const entry = table ? find_target(*table, target_) : std::nullopt) {
      socket_ = DaemonSocket::listen(entry->device);
    }
    if (auto const& device = options_.image.in_place_of; device && !device->note.empty()) {
      log_.say(Level::notice, device->note);
    }
    mounter_.send({Message::Kind::settled, warning, {}, {}});
    mounter_.close();
    if (life_ == Life::daemon) {
      worker_->send({Message::Kind::settled, {}, {}, {}});
      leave_streams(log_);
      return;
    }
    if (!warning.empty()) log_.say(Level::warning, warning);
    notify_ready(log_);
  }

  /// The kernel does not end such a device with its last mount.
  void start_timer() {
    timer_ = UniqueFd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    itimerspec const twice_a_second{{0, 500'000'000}, {0, 500'000'000}};
    ::timerfd_settime(timer_.get(), 0, &twice_a_second, nullptr);
  }

  void on_timer() {
    std::uint64_t count = 0;
    [[maybe_unused]] auto const n = ::read(timer_.get(), &count, sizeof count);
    if (!device_ || ending_ || apart_.fd() >= 0) return;
    do_apart([this] { return device_->is_in_use(); },
             [this](bool used) {
               if (!used && !ending_) force_end();
             });
  }

  /// The kernel has let go of our sockets.
  void on_device_end() {
    if (*device_->ended() == erofs_oci::NbdRelayEnd::hung_up && way_ == MountWay::netlink &&
        device_->is_connected()) {
      log_.say(Level::warning, "the kernel has closed the connection; it gets another: " +
                                   device_->relay().complaint());
      auto const relay = std::move(device_);
      reattaches_ = true;  // the next worker's start makes it
      worker_->kill();
      return;
    }
    ending_ = true;
    device_->dismiss();
    stop_->notify();
  }

  // --- handing over --------------------------------------------------------------------------

  /// Every request of the device is answered: another process goes on, or, if that has ended
  /// without a word, this one.
  void hand_device_over() {
    auto message = device_->release();
    if (!message) return log_.say(Level::error, message.error().message());
    auto const taken = give(*message);
    // One that is only slow has the sockets, and two must never serve them.
    if (!taken && taken.error().code == Errc::unavailable) {
      auto const ok = device_->resume(*std::move(message));
      if (!ok) log_.say(Level::error, ok.error().message());
      return;
    }
    let_go();
    ending_ = true;
    device_->dismiss();
    stop_->notify();
  }

  /// The worker has answered what it had, and ended: another process goes on, or, if that comes to
  /// nothing, this one.
  /// @return whether another does
  bool hand_connection_over() {
    auto const message = to_message(Message::Kind::connected, *fuse_);
    auto const taken = message ? give(*message) : Result<void>(fail(message.error()));
    if (taken) let_go();
    return taken.has_value();
  }

  /// Sends what is served on to who has asked for it, and waits for the word that it is taken.
  Result<void> give(Message const& message) {
    Link const to(std::exchange(successor_, {}));
    to.send(message);
    auto const answer = to.receive_within(60s);
    if (answer && answer->kind == Message::Kind::taken) return {};
    auto const error =
        answer ? Error{make_error_code(Errc::protocol), "no answer", {}} : answer.error();
    log_.say(Level::error, "handing over has come to nothing: " + error.message());
    return fail(error);
  }

  /// The mount and its record are another process's.
  void let_go() {
    log_.say(Level::info, "handed over");
    handed_over_ = true;
    control_ = ControlSocket();
    metrics_ = MetricsSocket();
    journal_ = MountJournal();  // lets its lock go
  }

  // --- the end -----------------------------------------------------------------------------

  /// The first signal unmounts; users that are still there are served to their end. The second one
  /// ends the mount under them.
  void on_signal(int number) {
    log_.say(Level::info, "signal " + std::to_string(number));
    if (!settled_) {
      failure_ = Error{std::make_error_code(std::errc::interrupted), "mount", {}};
      return force_end();
    }
    if (target_.empty() || std::exchange(detached_, true)) return force_end();
    do_apart([this] { return unmount(0); },
             [this](bool unmounted) {
               if (!unmounted) detach();
             });
  }

  void detach() {
    log_.say(Level::warning, target_ + " is in use: it is detached, and served to its last user");
    do_apart([this] { return unmount(MNT_DETACH); },
             [this](bool unmounted) {
               if (!unmounted) force_end();
             });
  }

  /// Does what may wait for reads of the device, which this process has to answer.
  void do_apart(std::function<bool()> const& work, std::function<void(bool)> done) {
    if (auto const ok = apart_.begin(work, std::move(done)); !ok) {
      log_.say(Level::error, ok.error().message());
    }
  }

  [[nodiscard]] bool unmount(int flags) const {
    if (::umount2(target_.c_str(), flags | UMOUNT_NOFOLLOW) == 0) return true;
    if (errno != EPERM || is_nbd(way_)) return false;
    auto const how = flags == 0 ? erofs_oci::UnmountBusy::refuse : erofs_oci::UnmountBusy::detach;
    return erofs_oci::unmount_fuse(target_, how, {}).has_value();
  }

  /// Ends the mount whoever uses it.
  void force_end() {
    if (device_) device_->detach();
    if (!is_nbd(way_) && !target_.empty()) static_cast<void>(unmount(MNT_DETACH));
    stop_->notify();
  }

  /// The mount has never stood.
  void clean_up_failure(Error const& error) {
    if (!settled_) mounter_.send({Message::Kind::failed, {}, error, {}});
    if (settled_) return;
    if (device_ && !reattaches_) device_->detach();
    if (device_) device_->dismiss();
    worker_->stop();
    if (!reattaches_) clean_up();
    if (options_.image.in_place_of) journal_.remove(log_);  // the device waits on for who asks next
  }

  /// Removes what was written about the mount, if the kernel has it no more.
  void clean_up() {
    if (handed_over_) return;
    if (device_ && !end_device()) return;
    remove_index();
    control_ = ControlSocket();
    journal_.remove(log_);
  }

  /// Whether the kernel lets go of the device.
  [[nodiscard]] bool end_device() {
    auto const path = device_->path();
    auto const index = device_->index();
    device_->detach();
    device_.reset();  // a device that was set up by ioctl(2) is held by who did it
    for (int i = 0; i < 200; ++i) {
      if (!erofs_oci::nbd_attribute(index, "pid")) return true;
      std::this_thread::sleep_for(10ms);
    }
    log_.say(Level::warning, path + " is still connected");
    return false;
  }

  void remove_index() const {
    std::error_code ignored;
    if (!options_.image.own_store.empty()) {
      std::filesystem::remove_all(options_.image.own_store, ignored);
    }
  }

  void give_up(std::string const& why) {
    auto const text = "given up: " + why;
    if (way_ == MountWay::netlink && device_ && device_->is_connected()) {
      log_.say(Level::error, text + "; `mount-oci reattach " + device_->path() +
                                 "` serves it again, for " +
                                 std::to_string(options_.keep.dead_timeout.count()) + " s");
      return;
    }
    log_.say(Level::error, text + "; `mount-oci umount " + target_ + "` takes it away");
    if (!is_nbd(way_)) {
      remove_index();
      journal_.remove(log_);
    }
  }

  // --- questions ---------------------------------------------------------------------------

  [[nodiscard]] std::string answer(std::string_view question, UniqueFd& client) {
    if (question == "hand over" && (device_ || fuse_) && settled_ && !ending_ && !successor_) {
      successor_ = std::move(client);
      device_ ? device_->pause() : stop_->notify();
      return {};
    }
    if (question == "status") return report_json(report());
    return R"({"error":"no such question"})";
  }

  [[nodiscard]] MountReport report() const {
    MountReport report{.way = way_,
                       .target = target_,
                       .device = device_ ? device_->path() : "",
                       .worker = worker_->pid(),
                       .worker_alive = worker_->fd() >= 0,
                       .restarts = worker_->restarts(),
                       .last_error = last_error_,
                       .counts = worker_->counts(),
                       .size = record_ ? record_->image.device_size : 0,
                       .metadata = record_ && record_->known ? record_->known->length : 0,
                       .reads = {},
                       .in_flight = 0};
    report.counts.cached = std::min(report.counts.cached, report.size);  // held in whole chunks
    if (!device_) return report;
    report.reads = device_->relay().counters();
    report.in_flight = device_->relay().in_flight();
    return report;
  }

  Options options_;
  Link mounter_;  // closed once the mount stands
  Life life_;
  std::optional<EarlierMount> earlier_;
  Log& log_;
  std::unique_ptr<Signals> signals_;
  std::unique_ptr<Wakeup> stop_;
  std::optional<Record> record_;  // empty until the first worker has opened the image
  MountJournal journal_;
  ControlSocket control_;
  DaemonSocket socket_;  // that others wait on for our end
  MetricsSocket metrics_;
  MountWay way_ = MountWay::netlink;
  std::string id_;      // what the kernel keeps as the device's backend
  std::string target_;  // where it is mounted; empty if that means nothing here
  std::unique_ptr<WorkerProcess> worker_;
  std::optional<SupervisedDaemon> first_;
  std::unique_ptr<KeptDevice> device_;
  std::optional<erofs_oci::FuseConnection> fuse_;
  UniqueFd timer_;
  Apart apart_;
  UniqueFd successor_;               // who waits for what this process serves on
  std::optional<Link> predecessor_;  // whom this process has asked for that
  bool reattaches_ = false;          // the device is there already
  bool connected_ = false;           // the present worker serves by FUSE
  bool serving_ = false;             // a worker has answered a read
  bool settled_ = false;             // mounted, and nobody waits
  bool detached_ = false;            // by a first signal
  bool ending_ = false;
  bool handed_over_ = false;
  std::string last_error_;
  std::string complaint_;  // of the relay, as it was told
  std::optional<Error> failure_;
};

}  // namespace

Result<void> supervise(Options options, Link link, Life life, std::optional<EarlierMount> earlier,
                       Log& log) {
  if (life == Life::daemon) {
    std::vector<int> keep{link.fd()};
    if (log.fd() >= 0) keep.push_back(log.fd());
    if (auto const ok = leave_caller(std::move(keep)); !ok) return ok;
  }
  MountKeeper keeper(std::move(options), std::move(link), life, std::move(earlier), log);
  return keeper.run();
}

}  // namespace mount_oci
