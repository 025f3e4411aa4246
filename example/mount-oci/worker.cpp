// SPDX-License-Identifier: Apache-2.0
#include "worker.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

#include <poll.h>
#include <unistd.h>

#include <erofs_oci/combinator/instrumented.hpp>
#include <erofs_oci/core/activity.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/fuse/choose_mount.hpp>
#include <erofs_oci/fuse/session.hpp>
#include <erofs_oci/nbd/engine.hpp>
#include <erofs_oci/nbd/wakeup.hpp>
#include <erofs_oci/recovery/record.hpp>
#include <erofs_oci/recovery/supervision.hpp>

#include "daemon.hpp"
#include "fuse_handover.hpp"
#include "fuse_server.hpp"
#include "hardening.hpp"
#include "image.hpp"
#include "memory_file.hpp"
#include "mount_report.hpp"
#include "served_image.hpp"

namespace mount_oci {
namespace {

using erofs_oci::Activity;
using erofs_oci::AnySource;
using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::MountWay;
using erofs_oci::nbd::Wakeup;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

/// Listens to the supervisor and to signals while the image is served.
class Watch {
 public:
  /// @param ends_alone  the end of the supervisor ends this process, too
  Watch(Link const& link, Signals const& signals, Wakeup ended, bool ends_alone, Log& log)
      : link_(link),
        signals_(signals),
        ended_(std::move(ended)),
        ends_alone_(ends_alone),
        log_(log),
        thread_([this] { run(); }) {}

  Watch(Watch const&) = delete;
  Watch& operator=(Watch const&) = delete;
  ~Watch() { ended_.notify(); }

  [[nodiscard]] std::stop_token stop_token() const noexcept { return stop_.get_token(); }

 private:
  void run() {
    auto listens = true;
    for (;;) {
      std::array<pollfd, 3> fds{{{ended_.fd(), POLLIN, 0},
                                 {signals_.fd(), POLLIN, 0},
                                 {listens ? link_.fd() : -1, POLLIN, 0}}};
      constexpr int tick = 250;  // milliseconds
      if (::poll(fds.data(), fds.size(), tick) < 0 && errno != EINTR) return;
      if (fds[0].revents != 0) return;
      if (fds[1].revents != 0) {
        static_cast<void>(signals_.wait());
        stop_.request_stop();
      }
      if (fds[2].revents != 0) listens = hear();
    }
  }

  bool hear() {
    auto const message = link_.receive();
    if (message && message->kind == Message::Kind::settled) leave_streams(log_);
    if (!message && ends_alone_) stop_.request_stop();
    return message.has_value();
  }

  Link const& link_;
  Signals const& signals_;
  Wakeup ended_;
  bool ends_alone_;
  Log& log_;
  std::stop_source stop_;
  std::jthread thread_;
};

/// What goes wrong in the same way whoever tries.
bool is_final(Error const& error) {
  return error.code == Errc::mismatch || error.code == Errc::digest_mismatch ||
         error.code == Errc::unauthorized || error.code == Errc::invalid_argument;
}

class Worker {
 public:
  Worker(WorkerTask task, Log& log) : task_(std::move(task)), log_(log) {}

  /// @return whether nothing is left to serve
  Result<bool> run() {
    drop();
    auto signals = Signals::take();
    if (!signals) return fail(std::move(signals).error());
    signals_ = std::make_unique<Signals>(*std::move(signals));
    auto image = open();
    if (!image) return fail(std::move(image).error());
    if (::chdir("/") != 0) return fail_errno(errno, "/");  // keeps nobody's directory busy
    if (auto const ok = tell_opened(*image); !ok) return fail(ok.error());
    auto port = task_.link.receive();
    if (!port) return fail(port.error());
    if (port->kind != Message::Kind::port) return fail(Errc::protocol, "the supervisor");
    cached_ = image->device.cached;
    image->device.source = AnySource(
        erofs_oci::Instrumented(std::move(image->device.source), erofs_oci::RecordTo(metrics_)));
    if (by_fuse()) return serve_fuse(std::move(image->device), *std::move(port));
    if (port->fds.size() != 2) return fail(Errc::protocol, "the supervisor: no port");
    return serve_nbd(std::move(image->device.source),
                     {std::move(port->fds[0]), std::move(port->fds[1])});
  }

  void report(Error const& error) const { task_.link.send({Message::Kind::failed, {}, error, {}}); }

 private:
  [[nodiscard]] bool by_fuse() const noexcept {
    return task_.way == MountWay::fuse_file || task_.way == MountWay::fuse_tree;
  }

  Result<ServedImage> open() {
    auto const guard = ExitOnSignal::make(*signals_, task_.link.fd());
    if (!guard) return fail(guard.error());
    if (!task_.record) return serve_first(task_.options.image, log_, &*guard);
    auto options = options_of(*task_.record, task_.options.image);
    if (!options) return fail(std::move(options).error());
    task_.options.image = *std::move(options);
    return serve_again(*task_.record, task_.options.image, log_, &*guard);
  }

  [[nodiscard]] Result<void> tell_opened(ServedImage const& image) const {
    // The supervisor adds how it is attached; until then a device's name stands in.
    auto record = image.record;
    if (record.attach.backend.empty()) record.attach.backend = "none";
    auto const bytes = erofs_oci::encode_record(record);
    if (!bytes) return fail(bytes.error());
    auto fd = to_memory_file(erofs_oci::as_bytes(*bytes));
    if (!fd) return fail(std::move(fd).error());
    Message message{Message::Kind::opened, std::to_string(image.device.zeros_from), {}, {}};
    message.fds.push_back(*std::move(fd));
    task_.link.send(message);
    return {};
  }

  Result<bool> serve_nbd(AnySource source, erofs_oci::nbd::RelayPort port) {
    erofs_oci::NbdEngineOptions options;
    options.workers = worker_count(task_.options.image);
    options.on_read_error = [this](std::uint64_t offset, std::uint32_t length, Error const& error) {
      log_.say(Level::error, "read of " + std::to_string(length) + " bytes at offset " +
                                 std::to_string(offset) + ": " + error.message());
      task_.link.send({Message::Kind::trouble, error.message(), {}, {}});
    };
    options.on_tick = [this](Activity<> const& reads) { beat(reads); };
    auto engine = erofs_oci::NbdEngine<AnySource>::open(std::move(source), std::move(port),
                                                        std::move(options));
    if (!engine) return fail(std::move(engine).error());
    auto const watch = begin_watch(true);
    if (!watch) return fail(watch.error());
    lock_memory(log_);
    refuse();
    task_.heartbeat.answered();
    auto const ended = engine->run((*watch)->stop_token());
    if (!ended) return fail(ended.error());
    return false;  // the device is for the supervisor to end
  }

  /// @param port  with the connection of an earlier worker, or without
  Result<bool> serve_fuse(erofs_oci::DeviceImage image, Message port) {
    std::optional<erofs_oci::FuseConnection> mounted;
    if (!port.fds.empty()) {
      auto connection = connection_of(std::move(port));
      if (!connection) return fail(std::move(connection).error());
      mounted = *std::move(connection);
    }
    auto const watch = begin_watch(false);
    if (!watch) return fail(watch.error());
    lock_memory(log_);
    FuseServing const what{.way = task_.way,
                           .target = task_.target,
                           .flags = task_.options.mount.flags,
                           .data = task_.options.mount.data,
                           .readahead = task_.options.image.readahead,
                           .threads = worker_count(task_.options.image),
                           .on_stop = erofs_oci::FuseStop::leave,
                           .on_failure =
                               [this](std::string const& text) {
                                 task_.link.send({Message::Kind::trouble, text, {}, {}});
                               },
                           .on_tick = [this](Activity<> const& requests) { beat(requests); }};
    auto end = serve_by_fuse(
        what, std::move(image), std::move(mounted), (*watch)->stop_token(),
        [&](erofs_oci::FuseSession& session) {
          auto const ok = tell_connected(session);
          if (!ok) log_.say(Level::warning, "no restart: " + ok.error().message());
          tell_refused(session.refused());
          refuse();
          task_.heartbeat.answered();
        },
        log_);
    if (!end) return fail(std::move(end).error());
    auto const unmounted = *end == erofs_oci::FuseEnd::unmounted;
    if (unmounted) task_.heartbeat.finished();
    return unmounted;
  }

  void tell_refused(std::size_t count) const {
    if (count == 0) return;
    complain(std::to_string(count) + " requests that have crashed workers were refused");
  }

  void complain(std::string const& text) const {
    log_.say(Level::error, text);
    task_.link.send({Message::Kind::trouble, text, {}, {}});
  }

  [[nodiscard]] Result<void> tell_connected(erofs_oci::FuseSession& session) const {
    auto const connection = session.share();
    if (!connection) return fail(connection.error());
    auto const message = to_message(Message::Kind::connected, *connection);
    if (!message) return fail(message.error());
    task_.link.send(*message);
    return {};
  }

  Result<std::unique_ptr<Watch>> begin_watch(bool ends_alone) {
    auto ended = Wakeup::open();
    if (!ended) return fail(std::move(ended).error());
    return std::make_unique<Watch>(task_.link, *signals_, *std::move(ended), ends_alone, log_);
  }

  /// Without privileges there is nothing to give up, and fusermount3 has to gain some.
  void drop() const {
    if (::geteuid() != 0) return;
    if (auto const ok = drop_capabilities(by_fuse() ? Mounts::yes : Mounts::no); !ok) {
      log_.say(Level::info, "privileges stay: " + ok.error().message());
    }
  }

  /// An old kernel or a container may not have seccomp; the image is served all the same.
  void refuse() const {
    if (auto const ok = refuse_system_calls(); !ok) log_.say(Level::info, ok.error().message());
  }

  /// A sign of life, but not for each of thousands of packets a second, and none if the threads
  /// that read get nothing done.
  void beat(Activity<> const& work) {
    auto const now = steady_clock::now();
    auto const busy = work.under_way() != 0;
    if (busy == was_busy_ && now - last_beat_ < 15ms) return;
    if (is_stalled(work)) return;
    was_busy_ = busy;
    last_beat_ = now;
    task_.heartbeat.beat(busy);
    if (now - last_count_ < 1s) return;
    last_count_ = now;
    auto const counted = metrics_.counts();
    WorkerCounts const counts{cached_ ? cached_() : 0, counted.reads + counted.streams,
                              counted.bytes, counted.errors};
    if (std::exchange(last_counts_, counts) == counts) return;
    task_.link.send({Message::Kind::counts, counts.text(), {}, {}});
  }

  /// Whether nothing has been done for longer than anything may take. A request may cost several
  /// reads, each of which has its time.
  bool is_stalled(Activity<> const& work) {
    auto const most = 4 * task_.options.image.timeout + 15s;
    if (work.stalled() < most) return false;
    if (!std::exchange(said_stalled_, true)) {
      complain("no read has ended for " + std::to_string(most.count()) + " s");
    }
    return true;
  }

  WorkerTask task_;
  Log& log_;
  std::unique_ptr<Signals> signals_;
  steady_clock::time_point last_beat_{};
  steady_clock::time_point last_count_{};
  erofs_oci::Metrics metrics_;
  WorkerCounts last_counts_;
  bool was_busy_ = false;
  bool said_stalled_ = false;
  std::function<std::uint64_t()> cached_{};
};

}  // namespace

int run_worker(WorkerTask task, Log& log) {
  hide_memory();
  Worker worker(std::move(task), log);
  auto const done = worker.run();
  // Asked to end by who has no say in it, it is replaced.
  if (done) return *done ? 0 : 1;
  worker.report(done.error());
  return is_final(done.error()) ? erofs_oci::SupervisionOptions{}.final_status : 2;
}

}  // namespace mount_oci
