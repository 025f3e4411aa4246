// SPDX-License-Identifier: Apache-2.0
#include "keeper.hpp"

#include <array>
#include <cerrno>
#include <utility>

#include <poll.h>

#include "mount_table.hpp"

namespace mount_oci {

using erofs_oci::UnmountBusy;
using erofs_oci::nbd::Wakeup;

Keeper::Keeper(Link link, Signals signals, Wakeup ended, Life life, Log& log)
    : link_(std::move(link)),
      signals_(std::move(signals)),
      ended_(std::move(ended)),
      life_(life),
      log_(log) {}

void Keeper::finish() noexcept {
  ended_.notify();
  if (thread_.joinable()) thread_.join();
}

void Keeper::begin(Attached attached) {
  attached_ = std::move(attached);
  link_.send(attached_.news);
  thread_ = std::jthread([this] { run(); });
}

void Keeper::run() {
  for (;;) {
    std::array<pollfd, 3> fds{{{ended_.fd(), POLLIN, 0},
                               {signals_.fd(), POLLIN, 0},
                               {mounted_ ? -1 : link_.fd(), POLLIN, 0}}};
    auto const watches = attached_.in_use && mounted_;
    if (::poll(fds.data(), fds.size(), watches ? 500 : -1) < 0 && errno != EINTR) return;
    if (fds[0].revents != 0) return;
    if (fds[1].revents != 0) on_signal(signals_.wait());
    if (fds[2].revents != 0) on_message();
    if (watches && !attached_.in_use()) stop_.request_stop();
  }
}

void Keeper::on_message() {
  auto const message = link_.receive();
  if (message && message->kind == Message::Kind::mounted) return on_mounted(message->text);
  failure_ = message && message->kind == Message::Kind::failed
                 ? message->error
                 : Error{make_error_code(Errc::unavailable), "the mounting process has ended", {}};
  link_.close();
  mounted_ = true;  // nothing more is to be heard
  stop_.request_stop();
}

void Keeper::on_mounted(std::string target) {
  target_ = std::move(target);
  mounted_ = true;
  auto const table = read_mount_table();
  if (auto const entry = table ? find_target(*table, target_) : std::nullopt) {
    device_ = entry->device;
    socket_ = DaemonSocket::listen(entry->device);
  }
  auto const warning = attached_.settle();
  link_.send({Message::Kind::settled, warning, {}, {}});
  link_.close();
  if (life_ == Life::daemon) return leave_streams(log_);
  if (!warning.empty()) log_.say(Level::warning, warning);
  notify_ready(log_);
}

/// The first signal unmounts; users that are still there are served to their end. The second one
/// ends what is served under them.
void Keeper::on_signal(int number) {
  log_.say(Level::info, "signal " + std::to_string(number));
  if (!mounted_) failure_ = Error{std::make_error_code(std::errc::interrupted), "mount", {}};
  if (!mounted_ || !is_still_there() || std::exchange(detached_, true)) {
    stop_.request_stop();
    return;
  }
  if (erofs_oci::unmount_fuse(target_, UnmountBusy::refuse)) return;  // of whatever kind it is
  log_.say(Level::warning, target_ + " is in use: it is detached, and served to its last user");
  if (!erofs_oci::unmount_fuse(target_, UnmountBusy::detach)) stop_.request_stop();
}

/// Else it is mounted in another namespace, or no more.
bool Keeper::is_still_there() const {
  auto const table = read_mount_table();
  auto const entry = table ? find_target(*table, target_) : std::nullopt;
  return entry && device_ && entry->device == *device_;
}

}  // namespace mount_oci
