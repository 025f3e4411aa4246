// SPDX-License-Identifier: Apache-2.0
// Ending a mount or a device, and waiting until nothing of it is left.
#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

#include <linux/nbd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/nbd/netlink.hpp>

#include "commands.hpp"
#include "daemon_socket.hpp"
#include "mount_table.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using namespace std::chrono_literals;

constexpr auto patience = 10s;  // for a daemon to end

/// Asks again and again until the answer is yes.
bool wait_for(std::chrono::milliseconds longest, std::function<bool()> const& done) {
  auto const end = std::chrono::steady_clock::now() + longest;
  while (!done()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(10ms);
  }
  return true;
}

/// An NBD device that is about to end, and the process that serves it.
class Device {
 public:
  explicit Device(std::uint32_t index) : index_(index) {
    if (auto const pid = erofs_oci::nbd_attribute(index, "pid")) {
      pid_ = *pid;
      process_ = process_of(pid_);
    }
  }

  /// Keeps others from setting the device up while we look at it.
  void hold() {
    fd_ = UniqueFd(::open(erofs_oci::nbd_device_path(index_).c_str(), O_RDONLY | O_CLOEXEC));
  }

  /// Disconnects it, if it is still what it was.
  Result<void> disconnect() {
    if (!is_connected()) return {};
    auto netlink = erofs_oci::NbdNetlink::open();
    if (netlink) {
      auto done = netlink->disconnect(index_);
      if (done) return done;
      netlink = tl::unexpected(std::move(done).error());
    }
    // Kernels without nbd over netlink, and devices that were not set up by it.
    hold();
    if (fd_ && ::ioctl(fd_.get(), NBD_DISCONNECT) == 0) return {};
    return fail(netlink.error());
  }

  /// Waits until its server has gone and, unless something is still mounted from it, it is free.
  Result<void> wait_until_gone() {
    fd_.reset();
    auto const gone = [this] { return !is_served() && (!is_connected() || is_in_use()); };
    if (!wait_for(patience, gone)) {
      return fail(Errc::timed_out,
                  erofs_oci::nbd_device_path(index_) +
                      (is_connected() ? " is still connected"
                                      : ": process " + process_ + " has not ended"));
    }
    return {};
  }

  /// Whether a file system is mounted from it, in whatever mount namespace.
  [[nodiscard]] bool is_in_use() const {
    auto const path = erofs_oci::nbd_device_path(index_);
    UniqueFd const fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_EXCL));
    return !fd && errno == EBUSY;
  }

  [[nodiscard]] bool is_connected() const {
    auto const pid = erofs_oci::nbd_attribute(index_, "pid");
    return pid && *pid == pid_;
  }

 private:
  /// The process of a thread, which is what the kernel names; the thread ends first.
  static std::string process_of(std::string const& thread) {
    constexpr std::string_view key = "\nTgid:\t";
    auto const status = read_start("/proc/" + thread + "/status");
    auto const at = status.find(key);
    if (at == std::string::npos) return thread;
    auto const number = status.substr(at + key.size());
    return number.substr(0, number.find('\n'));
  }

  /// The start of a small file, or nothing.
  static std::string read_start(std::string const& path) {
    auto const fd = erofs_oci::open_read(path);
    erofs_oci::Bytes buffer(4096);
    auto const n = fd ? erofs_oci::read_full(fd->get(), buffer) : Result<std::size_t>(0);
    return std::string(erofs_oci::as_text(std::span(buffer).first(n.value_or(0))));
  }

  /// Whether the server still runs. It may run in another PID namespace, where its number is none
  /// of ours, or another program may have the number by now: hence the name.
  [[nodiscard]] bool is_served() const {
    if (process_.empty()) return false;
    auto const name = read_start("/proc/" + process_ + "/comm");
    return name.starts_with("mount-oci") || name.starts_with("mount.erofs");
  }

  std::uint32_t index_;
  std::string pid_;      ///< as the kernel shows it: of a thread
  std::string process_;  ///< the one that this thread belongs to
  UniqueFd fd_;
};

/// Where a device is mounted, or nothing.
std::optional<std::string> mounted_at(std::vector<MountEntry> const& table, dev_t device) {
  for (auto const& entry : table) {
    if (entry.device == device) return entry.target;
  }
  return std::nullopt;
}

Result<void> end_device(std::string const& path, dev_t number, UmountOptions const& options,
                        std::vector<MountEntry> const& table) {
  auto const index = nbd_index_of(number);
  if (!index) return fail(Errc::unsupported, path + ": not an NBD device");
  auto const where = mounted_at(table, number);
  if (where && !options.disconnect) {
    return fail_errno(EBUSY, path + " is mounted at " + *where);
  }
  Device device(*index);
  if (!device.is_connected()) return fail_errno(ENOTCONN, path);
  if (auto ok = device.disconnect(); !ok) return ok;
  return device.wait_until_gone();
}

/// Of an image that is not on an NBD device.
Result<void> end_other_mount(std::string const& target, MountEntry const& entry, Log const& log) {
  auto const daemon = DaemonWatch::of(entry.device);
  if (auto ok = erofs_oci::unmount_fuse(target, erofs_oci::UnmountBusy::refuse); !ok) return ok;
  // Mounted a second time: the daemon goes on living for that.
  auto const table = read_mount_table();
  if (table && mounted_at(*table, entry.device)) return {};
  if (!daemon.wait(patience)) {
    log.say(Level::warning, target + ": its daemon goes on; is it mounted in another namespace?");
  }
  return {};
}

Result<void> end_mount(std::string const& target, MountEntry const& entry, Log const& log) {
  auto const index = nbd_index_of(entry.device);
  if (!index) return end_other_mount(target, entry, log);
  Device device(*index);
  device.hold();  // or the device could be someone else's by the time it is looked at
  if (::umount2(target.c_str(), UMOUNT_NOFOLLOW) != 0) return fail_errno(errno, target);
  // Mounted a second time, perhaps where we cannot see it: the device goes on living for that.
  if (device.is_in_use()) return {};
  if (auto ok = device.disconnect(); !ok) return ok;
  return device.wait_until_gone();
}

/// The absolute path of a mount point, which may be one that answers no more.
Result<std::string> mount_point_path(std::string path) {
  auto whole = real_path(path);
  if (whole) return whole;
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  auto const slash = path.rfind('/');
  auto const parent = slash == std::string::npos ? std::string(".") : path.substr(0, slash + 1);
  auto folder = real_path(parent);
  if (!folder) return whole;
  auto const table = read_mount_table();
  auto dead = (*folder == "/" ? "" : *folder) + '/' + path.substr(slash + 1);
  if (!table || !find_target(*table, dead)) return whole;
  return dead;
}

}  // namespace

Result<void> run_umount(UmountOptions const& options, Log& log) {
  auto const path = mount_point_path(options.target);
  if (!path) return fail(path.error());
  auto const table = read_mount_table();
  if (!table) return fail(table.error());
  if (auto const number = block_device(*path)) return end_device(*path, *number, options, *table);
  if (options.disconnect) return fail_errno(ENOTBLK, *path);
  auto const entry = find_target(*table, *path);
  if (!entry) return fail_errno(EINVAL, *path + " is not a mount point");
  return end_mount(*path, *entry, log);
}

}  // namespace mount_oci
