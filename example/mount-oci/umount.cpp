// SPDX-License-Identifier: Apache-2.0
// Ends a mount or a device, and waits until its processes have ended.
#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <sys/ioctl.h>

#include <linux/nbd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/host/mount_point.hpp>
#include <erofs_oci/host/unmount.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/nbd/netlink.hpp>
#include <erofs_oci/posix/text_file.hpp>
#include <erofs_oci/posix/wait.hpp>

#include "commands.hpp"
#include "daemon_socket.hpp"
#include "mount_table.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using namespace std::chrono_literals;

constexpr auto patience = 10s;  // for a daemon to end

/// An NBD device that is about to end, and the process that serves it.
class Device {
 public:
  explicit Device(std::uint32_t index) : index_(index) {
    if (auto const pid = erofs_oci::nbd_attribute(index, "pid")) {
      pid_ = *pid;
      process_ = process_of(pid_);
    }
  }

  /// Keeps other processes from setting the device up during the examination.
  void hold() {
    fd_ = UniqueFd(::open(erofs_oci::nbd_device_path(index_).c_str(), O_RDONLY | O_CLOEXEC));
  }

  /// Disconnects it, if it is still what it was.
  Result<void> disconnect() {
    if (!is_connected()) return {};
    auto const done = erofs_oci::NbdNetlink::open().and_then(
        [this](auto&& netlink) { return netlink.disconnect(index_); });
    if (done) return done;
    // Kernels without nbd over netlink, and devices that were not set up by it.
    hold();
    if (fd_ && ::ioctl(fd_.get(), NBD_DISCONNECT) == 0) return {};
    return done;
  }

  /// Waits until its server has gone and, unless something is still mounted from it, it is free.
  Result<void> wait_until_gone() {
    fd_.reset();
    auto const gone = [this] { return !is_served() && (!is_connected() || is_in_use()); };
    if (erofs_oci::wait_for(patience, gone)) return {};
    return fail(Errc::timed_out, erofs_oci::nbd_device_path(index_) +
                                     (is_connected() ? " is still connected"
                                                     : ": process " + process_ + " has not ended"));
  }

  /// Whether a file system is mounted from it, in whatever mount namespace.
  [[nodiscard]] bool is_in_use() const { return erofs_oci::nbd_is_in_use(index_); }

  [[nodiscard]] bool is_connected() const {
    auto const pid = erofs_oci::nbd_attribute(index_, "pid");
    return pid && *pid == pid_;
  }

 private:
  /// The process of a thread, which is what the kernel names; the thread ends first.
  static std::string process_of(std::string const& thread) {
    constexpr std::string_view key = "\nTgid:\t";
    auto const status = erofs_oci::read_text_file("/proc/" + thread + "/status").value_or("");
    auto const at = status.find(key);
    if (at == std::string::npos) return thread;
    auto const number = status.substr(at + key.size());
    return number.substr(0, number.find('\n'));
  }

  /// Whether the server still runs. It may run in another PID namespace, where its number is none
  /// of ours, or another program may have the number by now: hence the name.
  [[nodiscard]] bool is_served() const {
    if (process_.empty()) return false;
    auto const name = erofs_oci::read_text_file("/proc/" + process_ + "/comm").value_or("");
    return name.starts_with("mount-oci") || name.starts_with("mount.erofs");
  }

  std::uint32_t index_;
  std::string pid_;      ///< as the kernel shows it: of a thread
  std::string process_;  ///< the one that this thread belongs to
  UniqueFd fd_;
};

/// Where a device is mounted, or nothing.
std::optional<std::string> mounted_at(std::vector<MountEntry> const& table, dev_t device) {
  auto const index = nbd_index_of(device);
  auto const entry = std::ranges::find_if(table, [&](MountEntry const& one) {
    return one.device == device || (index && nbd_index_of(one.device) == index);
  });
  return entry == table.end() ? std::nullopt : std::optional(entry->target);
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
  EROFS_OCI_TRY(device.disconnect());
  return device.wait_until_gone();
}

Result<void> unmount(std::string const& target, MountEntry const& entry) {
  return erofs_oci::unmount(target, erofs_oci::UnmountBusy::refuse, "fusermount3", entry.id);
}

/// Waits until the kernel has removed a device of dm-verity with its last mount, which it does a
/// moment later; another mount may keep it.
void wait_for_verity(dev_t device) {
  static_cast<void>(erofs_oci::wait_for(1s, [=] { return !is_verity_device(device); }));
}

/// Whether a file system is mounted still, or again, so that its server stays.
bool is_mounted(dev_t device) {
  auto const table = read_mount_table();
  return table && mounted_at(*table, device);
}

/// Of an image that is not on an NBD device.
Result<void> end_other_mount(std::string const& target, MountEntry const& entry, Log const& log) {
  auto const daemon = DaemonWatch::of(entry.device);
  EROFS_OCI_TRY(unmount(target, entry));
  if (is_mounted(entry.device)) return {};
  wait_for_verity(entry.device);
  // A clone that another process is making may come yet.
  auto const is_over = [&] { return daemon.wait(100ms) || is_mounted(entry.device); };
  if (!erofs_oci::wait_for(patience, is_over)) {
    log.say(Level::warning, target +
                                ": the process that serves it still runs; the image may be mounted "
                                "in another namespace, too");
  }
  return {};
}

Result<void> end_mount(std::string const& target, MountEntry const& entry, Log const& log) {
  auto const index = nbd_index_of(entry.device);
  if (!index) return end_other_mount(target, entry, log);
  Device device(*index);
  device.hold();  // or another process could set the device up before it is examined
  EROFS_OCI_TRY(unmount(target, entry));
  if (is_mounted(entry.device)) return {};
  wait_for_verity(entry.device);
  // Mounted a second time in another namespace: the device stays.
  if (device.is_in_use()) return {};
  EROFS_OCI_TRY(device.disconnect());
  return device.wait_until_gone();
}

/// Why a mount that is not ours stays.
std::string foreign_mount(std::vector<MountEntry> const& table, std::string const& path,
                          MountEntry const& top) {
  auto const what = top.type + " from " + top.source;
  for (auto const& entry : table) {
    if (entry.target == path && is_ours(entry)) {
      return path + ": " + what + " is mounted over the image; unmount that first: umount " + path;
    }
  }
  return path + ": " + what + ", no mount of an image";
}

}  // namespace

Result<void> run_umount(UmountOptions const& options, Log& log) {
  // Of a mount whose reads fail or wait, too: neither asks its server.
  EROFS_OCI_TRY_ASSIGN(auto const path,
                       erofs_oci::open_place(options.target).and_then([](UniqueFd place) {
                         return erofs_oci::path_of(place.get());
                       }));
  EROFS_OCI_TRY_ASSIGN(auto const table, read_mount_table());
  if (auto const number = block_device(path)) return end_device(path, *number, options, table);
  if (options.disconnect) return fail_errno(ENOTBLK, path);
  auto const entry = find_target(table, path);
  if (!entry) {
    return fail(erofs_oci::explain(std::make_error_code(std::errc::invalid_argument),
                                   path + " is not a mount point"));
  }
  if (!is_ours(*entry)) return fail_errno(EBUSY, foreign_mount(table, path, *entry));
  return end_mount(path, *entry, log);
}

}  // namespace mount_oci
