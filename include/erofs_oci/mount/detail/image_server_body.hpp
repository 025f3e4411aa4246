// SPDX-License-Identifier: Apache-2.0
/// @file
/// What mount/image_server.hpp only declares.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/mount/image_server.hpp>
#include <erofs_oci/mount/mount_hooks.hpp>
#include <erofs_oci/mount/mount_supervisor.hpp>
#include <erofs_oci/mount/mount_worker.hpp>
#include <erofs_oci/nbd/wakeup.hpp>
#include <erofs_oci/posix/signals.hpp>
#include <erofs_oci/posix/timer.hpp>

namespace erofs_oci {

/// The supervisor with its thread, and what other threads tell it.
struct ImageServer::Core {
  Core(OpenImage open_image, MountWay chosen, std::string directory, ImageMountOptions const& how,
       nbd::Wakeup to_wake, nbd::Wakeup to_end)
      : open(std::move(open_image)),
        way(chosen),
        target(std::move(directory)),
        options(how),
        wakeup(std::move(to_wake)),
        end(std::move(to_end)) {}

  Core(Core const&) = delete;
  Core& operator=(Core const&) = delete;
  ~Core() {
    {
      std::lock_guard const lock(mutex);
      ends = true;
    }
    wakeup.notify();
  }

  // --- on the thread that starts it --------------------------------------------------------------

  /// Until it is mounted or has failed. Called once.
  [[nodiscard]] Result<void> begin(MountDevice const& mount) {
    if (way == MountWay::ioctl) EROFS_OCI_TRY(set_timer());
    supervisor.emplace(plan(), hooks());
    thread = std::jthread([this] { run(); });
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return device || place || over; });
    if (device && !over) {
      lock.unlock();
      mount_device(mount);
      lock.lock();
      changed.wait(lock, [this] { return place || over; });
    }
    if (place) return {};
    return fail(error.value_or(make_error(Errc::unavailable, "the mount has ended")), target);
  }

 private:
  void mount_device(MountDevice const& mount) {
    auto done = mount(*device);
    {
      std::lock_guard const lock(mutex);
      mounted = std::move(done);
    }
    wakeup.notify();
  }

  /// The kernel does not end a device of ioctl(2) with its last mount.
  [[nodiscard]] Result<void> set_timer() {
    EROFS_OCI_TRY_ASSIGN(timer, Timer::open());
    return timer.every(std::chrono::milliseconds(500));
  }

  // --- on the supervisor's thread ----------------------------------------------------------------

  void run() noexcept {
    auto const done = without_throwing([this] { return supervisor->run(); });
    {
      std::lock_guard const lock(mutex);
      over = true;
      if (!done) error = done.error();
      if (done && *done == MountEnd::given_up) {
        error = make_error(Errc::unavailable, supervisor->last_error());
      }
    }
    changed.notify_all();
    end.notify();
  }

  [[nodiscard]] MountPlan plan() const {
    MountPlan made{.way = way};
    if (!is_nbd(way)) made.target = target;
    made.in_process = options.readers == ImageReaders::threads;
    // No other process would serve it.
    if (made.in_process) made.device.dead_connection_timeout = std::chrono::seconds(0);
    return made;
  }

  [[nodiscard]] MountHooks hooks() {
    MountHooks made;
    made.work = [this](WorkerSeat seat) { return work(std::move(seat)); };
    made.announce = [this](std::string const& path) {
      if (path.empty()) return supervisor->mounted(target);
      note([&] { device = path; });
    };
    made.settled = [this](std::string const& warning) {
      if (!warning.empty()) log(MountSeverity::warning, warning);
      auto const& known = supervisor->plan();
      note([&] { place = MountedAt{known.target, known.mount_id.value_or(0)}; });
    };
    made.log = [this](MountSeverity severity, std::string const& text) { log(severity, text); };
    made.watch = [this](std::vector<pollfd>& fds) {
      fds.push_back({wakeup.fd(), POLLIN, 0});
      fds.push_back({place ? timer.fd() : -1, POLLIN, 0});
      fds.push_back({place ? -1 : options.interrupt, POLLIN, 0});
    };
    made.act = [this](std::span<pollfd const> fds) {
      if (fds[0].revents != 0) obey();
      if (fds[1].revents != 0) look();
      if (fds[2].revents != 0) supervisor->interrupt();
    };
    return made;
  }

  template <class Change>
  void note(Change const& change) {
    {
      std::lock_guard const lock(mutex);
      change();
    }
    changed.notify_all();
  }

  void obey() {
    wakeup.clear();
    std::unique_lock lock(mutex);
    auto const done = std::exchange(mounted, std::nullopt);
    auto const to_end = std::exchange(ends, false);
    lock.unlock();
    if (done && *done) supervisor->mounted((*done)->target);
    if (done && !*done) supervisor->mounting_failed(done->error());
    if (!to_end) return;
    supervisor->found_at({}, 0);  // so that nothing is unmounted, which is the owner's business
    supervisor->interrupt();
  }

  void look() {
    timer.clear();
    supervisor->check_use();
  }

  void log(MountSeverity severity, std::string const& text) const {
    if (options.log) options.log(severity, text);
  }

  // --- on a reader's thread, or in its process ---------------------------------------------------

  int work(WorkerSeat seat) const {
    MountWorker worker(std::move(seat));
    auto const done = without_throwing([&] { return serve(worker); });
    if (!done) worker.report(done.error());
    return done && *done ? 0 : 1;
  }

  [[nodiscard]] Result<bool> serve(MountWorker& worker) const {
    std::optional<Signals> signals;
    MountWorkerOptions how;
    if (!worker.seat().is_thread) {
      EROFS_OCI_TRY_ASSIGN(signals, Signals::take());
      how.signals = &*signals;
    }
    EROFS_OCI_TRY_ASSIGN(auto image, open());
    how.serving = {.way = way, .target = target, .flags = options.flags, .data = options.data};
    how.serving.readahead = options.readahead;
    how.serving.threads = options.threads;
    how.serving.on_failure = [this](std::string const& text) { log(MountSeverity::error, text); };
    how.serving.on_attached = [this](std::string const& text) { log(MountSeverity::info, text); };
    how.on_read_error = [this](std::uint64_t offset, std::uint32_t length, Error const& why) {
      log(MountSeverity::error, "read of " + std::to_string(length) + " bytes at offset " +
                                    std::to_string(offset) + ": " + why.message());
    };
    WorkerImage const told{.size = image.source.size(), .zeros_from = image.zeros_from};
    return worker.serve(told, std::move(image.source), std::move(how));
  }

 public:
  OpenImage const open;
  MountWay const way;
  std::string const target;
  ImageMountOptions const options;
  nbd::Wakeup const wakeup;  // there are commands
  nbd::Wakeup const end;
  Timer timer;
  std::mutex mutex;  // guards what follows, up to the supervisor
  std::condition_variable changed;
  std::optional<std::string> device;           // to be mounted
  std::optional<Result<MountedAt>> mounted{};  // of the device
  bool ends = false;                           // it is to end
  std::optional<MountedAt> place;              // once it is mounted; then it stays as it is
  bool over = false;
  std::optional<Error> error;
  std::optional<MountSupervisor> supervisor;  // the thread's
  std::jthread thread;                        // last: joined first
};

EROFS_OCI_BODY ImageServer::ImageServer(std::unique_ptr<Core> core) noexcept
    : core_(std::move(core)) {}

EROFS_OCI_BODY ImageServer::~ImageServer() = default;

EROFS_OCI_BODY Result<std::unique_ptr<ImageServer>> ImageServer::start(
    OpenImage open, MountWay way, std::string const& target, ImageMountOptions const& options,
    MountDevice const& mount) {
  EROFS_OCI_TRY_ASSIGN(auto wakeup, nbd::Wakeup::open());
  EROFS_OCI_TRY_ASSIGN(auto end, nbd::Wakeup::open());
  auto core = std::make_unique<Core>(std::move(open), way, target, options, std::move(wakeup),
                                     std::move(end));
  EROFS_OCI_TRY(core->begin(mount));
  return std::unique_ptr<ImageServer>(new ImageServer(std::move(core)));
}

EROFS_OCI_BODY MountedAt const& ImageServer::place() const noexcept {
  return *core_->place;
}

EROFS_OCI_BODY int ImageServer::end_fd() const noexcept {
  return core_->end.fd();
}

EROFS_OCI_BODY std::optional<Error> ImageServer::failure() const {
  std::lock_guard const lock(core_->mutex);
  return core_->error;
}

}  // namespace erofs_oci
