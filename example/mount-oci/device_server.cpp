// SPDX-License-Identifier: Apache-2.0
#include "device_server.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <unistd.h>

#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/nbd/ioctl_connect.hpp>
#include <erofs_oci/nbd/netlink_connect.hpp>
#include <erofs_oci/nbd/server.hpp>
#include <erofs_oci/nbd/wakeup.hpp>

#include "choose_way.hpp"
#include "daemon.hpp"
#include "fuse_server.hpp"
#include "image.hpp"
#include "mount_table.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::IoctlConnect;
using erofs_oci::MountWay;
using erofs_oci::NetlinkConnect;
using erofs_oci::nbd::Wakeup;

// ---------------------------------------------------------------- while it lives

/// Waits beside the server for what else can happen, and acts on it.
class Keeper {
 public:
  /// What the device needs once it is mounted; yields a warning or nothing.
  using Settle = std::function<std::string()>;

  Keeper(Link link, Signals signals, Wakeup ended, Life life, Log& log)
      : link_(std::move(link)),
        signals_(std::move(signals)),
        ended_(std::move(ended)),
        life_(life),
        log_(log) {}

  Keeper(Keeper const&) = delete;
  Keeper& operator=(Keeper const&) = delete;

  ~Keeper() { finish(); }

  /// Waits no more. Must come before what `settle` needs is gone, and before failure() and
  /// report().
  void finish() noexcept {
    ended_.notify();
    if (thread_.joinable()) thread_.join();
  }

  /// Tells of the device and begins to wait. Called by the server, once.
  void begin(std::uint32_t index, Settle settle) {
    index_ = index;
    settle_ = std::move(settle);
    link_.send({Message::Kind::device, erofs_oci::nbd_device_path(index), {}, {}});
    thread_ = std::jthread([this] { run(); });
  }

  /// The same for files that are mounted already, at an absolute path.
  void begin_files(std::string const& target) {
    settle_ = [] { return std::string(); };
    link_.send({Message::Kind::mounted, target, {}, {}});
    thread_ = std::jthread([this] { run(); });
  }

  /// When the server is to end.
  [[nodiscard]] std::stop_token stop_token() const noexcept { return stop_.get_token(); }

  /// Why it was not mounted, if it was not.
  [[nodiscard]] std::optional<Error> const& failure() const noexcept { return failure_; }

  [[nodiscard]] Signals const& signals() const noexcept { return signals_; }

  /// Closed at the other end once nobody waits for a mount any more.
  [[nodiscard]] int link_fd() const noexcept { return link_.fd(); }

  /// Ends the device when nothing is mounted from it any more, where the kernel does not.
  void watch_mount() noexcept { watches_ = true; }

  /// The other process is told why there will be no device.
  void report(Error const& error) const { link_.send({Message::Kind::failed, {}, error, {}}); }

 private:
  void run() {
    for (;;) {
      std::array<pollfd, 3> fds{{{ended_.fd(), POLLIN, 0},
                                 {signals_.fd(), POLLIN, 0},
                                 {mounted_ ? -1 : link_.fd(), POLLIN, 0}}};
      auto const pause = watches_ && mounted_ ? 500 : -1;
      if (::poll(fds.data(), fds.size(), pause) < 0 && errno != EINTR) return;
      if (fds[0].revents != 0) return;
      if (fds[1].revents != 0) on_signal(signals_.wait());
      if (fds[2].revents != 0) on_message();
      if (watches_ && mounted_ && !is_in_use()) stop_.request_stop();
    }
  }

  void on_message() {
    auto const message = link_.receive();
    if (message && message->kind == Message::Kind::mounted) {
      target_ = message->text;
      mounted_ = true;
      auto const warning = settle_();
      link_.send({Message::Kind::settled, warning, {}, {}});
      link_.close();
      if (life_ == Life::daemon) {
        leave_streams(log_);
      } else {
        if (!warning.empty()) log_.say(Level::warning, warning);
        notify_ready(log_);
      }
      return;
    }
    failure_ =
        message && message->kind == Message::Kind::failed
            ? message->error
            : Error{make_error_code(Errc::unavailable), "the mounting process has ended", {}};
    link_.close();
    mounted_ = true;  // nothing more is to be heard
    stop_.request_stop();
  }

  /// The first signal unmounts; users that are still there are served to their end. The second one
  /// ends the device under them.
  void on_signal(int number) {
    log_.say(Level::info, "signal " + std::to_string(number));
    if (!mounted_) failure_ = Error{std::make_error_code(std::errc::interrupted), "mount", {}};
    if (!mounted_ || target_.empty() || std::exchange(detached_, true)) {
      stop_.request_stop();
      return;
    }
    auto const table = read_mount_table();
    auto const entry = table ? find_target(*table, target_) : std::nullopt;
    if (!index_ || !entry || nbd_index_of(entry->device) != index_) {
      stop_.request_stop();  // mounted by FUSE, in another namespace, or no more
      return;
    }
    if (::umount2(target_.c_str(), UMOUNT_NOFOLLOW) == 0) return;
    log_.say(Level::warning, target_ + " is in use: it is detached, and served to its last user");
    ::umount2(target_.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
  }

  /// Whether a file system is mounted from the device, in whatever mount namespace.
  [[nodiscard]] bool is_in_use() const {
    auto const path = erofs_oci::nbd_device_path(*index_);
    UniqueFd const fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_EXCL));
    return !fd && errno == EBUSY;
  }

  Link link_;
  Signals signals_;
  Wakeup ended_;
  Life life_;
  Log& log_;
  std::optional<std::uint32_t> index_;  // of the NBD device, if it is one
  Settle settle_;
  std::string target_;
  bool mounted_ = false;   // or given up
  bool detached_ = false;  // by a first signal
  bool watches_ = false;   // whether the device must be ended once it is not mounted any more
  std::optional<Error> failure_;
  std::stop_source stop_;
  std::jthread thread_;
};

/// Makes the last unmount end the device, where the kernel can do that; yields a warning or
/// nothing.
template <class Connect>
std::string settle([[maybe_unused]] Connect& connect) {
  if constexpr (requires { connect.set_disconnect_on_close(); }) {
    auto const ok = connect.set_disconnect_on_close();
    if (!ok) return "umount will not end the device: " + ok.error().message();
  }
  return {};
}

template <class Connect>
Result<void> serve_with(Connect connect, erofs_oci::DeviceImage image, Options const& options,
                        Keeper& keeper, Log& log) {
  erofs_oci::NbdServer server(
      std::move(image.source), std::move(connect),
      {.zeros_from = image.zeros_from,
       .workers = worker_count(options.image),
       .on_read_error = [&log](std::uint64_t offset, std::uint32_t length, Error const& error) {
         log.say(Level::error, "read of " + std::to_string(length) + " bytes at offset " +
                                   std::to_string(offset) + ": " + error.message());
       }});
  auto done = server.run(keeper.stop_token(), [&](Connect& attached) {
    auto const kib = static_cast<std::uint32_t>(options.image.readahead / 1024);
    if (auto const ok = erofs_oci::set_nbd_read_ahead(attached.index(), kib); !ok) {
      log.say(Level::info, "read ahead: " + ok.error().message());
    }
    keeper.begin(attached.index(), [&attached] { return settle(attached); });
  });
  keeper.finish();
  return done;
}

Result<void> serve_device_by(MountWay way, erofs_oci::DeviceImage image, Options const& options,
                             Keeper& keeper, Log& log) {
  erofs_oci::NbdDeviceOptions device;
  device.dead_connection_timeout = std::chrono::seconds(0);  // nobody would come in our place
  device.backend = "mount-oci";
  if (way == MountWay::netlink) {
    return serve_with(NetlinkConnect(device), std::move(image), options, keeper, log);
  }
  keeper.watch_mount();
  return serve_with(IoctlConnect(device), std::move(image), options, keeper, log);
}

/// The server mounts by itself; then the mounting process looks whether files can be read.
Result<void> serve_files(MountWay way, std::string target, erofs_oci::DeviceImage image,
                         Options const& options, Keeper& keeper, Log& log) {
  FuseServing const what{.way = way,
                         .target = std::move(target),
                         .flags = options.mount.flags,
                         .data = options.mount.data,
                         .readahead = options.image.readahead,
                         .threads = worker_count(options.image)};
  auto const end = serve_by_fuse(
      what, std::move(image), {}, keeper.stop_token(),
      [&](erofs_oci::FuseSession&) { keeper.begin_files(what.target); }, log);
  keeper.finish();
  if (!end) return fail(end.error());
  return {};
}

Result<void> open_and_serve(Options const& options, Keeper& keeper, Life life, Log& log) {
  auto image = open_or_exit(options.image, keeper.signals(), log, keeper.link_fd());
  if (!image) return fail(std::move(image).error());
  auto const way = choose_way(options.mount.attach, {}, log);
  if (!way) return fail(way.error());
  auto const by_fuse = *way == MountWay::fuse_file || *way == MountWay::fuse_tree;
  auto target = by_fuse ? real_path(options.mount.target) : Result<std::string>("");
  if (!target) return fail(std::move(target).error());
  if (life == Life::daemon && ::chdir("/") != 0) return fail_errno(errno, "/");
  lock_memory(log);
  if (!by_fuse) return serve_device_by(*way, *std::move(image), options, keeper, log);
  return serve_files(*way, *std::move(target), *std::move(image), options, keeper, log);
}

}  // namespace

Result<void> serve_device(Options const& options, Link link, Life life, Log& log) {
  if (life == Life::daemon) {
    if (auto ok = leave_caller({link.fd()}); !ok) return ok;
  }
  auto signals = Signals::take();
  if (!signals) return fail(std::move(signals).error());
  auto ended = Wakeup::open();
  if (!ended) return fail(std::move(ended).error());

  Keeper keeper(std::move(link), *std::move(signals), *std::move(ended), life, log);
  auto done = open_and_serve(options, keeper, life, log);
  keeper.finish();
  if (!done) keeper.report(done.error());
  if (done && keeper.failure()) return fail(*keeper.failure());
  return done;
}

}  // namespace mount_oci
