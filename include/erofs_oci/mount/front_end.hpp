// SPDX-License-Identifier: Apache-2.0
/// @file
/// MountFrontEnd: what the kernel reaches an image by, as the supervisor of a mount keeps it.
#pragma once

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/fuse/inflight.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/host/unmount.hpp>
#include <erofs_oci/mount/fuse_message.hpp>
#include <erofs_oci/mount/mount_channel.hpp>
#include <erofs_oci/mount/mount_worker.hpp>
#include <erofs_oci/mount/relayed_device.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/nbd/ioctl_connect.hpp>
#include <erofs_oci/nbd/netlink_connect.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/posix/wait.hpp>

namespace erofs_oci {

/// The sockets of an NBD device, or a copy of a FUSE connection; neither before attach() or
/// adopt().
///
/// @par Thread safety
/// None: one thread, which polls.
class MountFrontEnd {
 public:
  /// How a device comes about.
  enum class Attach {
    anew,    ///< a free device is set up
    again,   ///< the device of that index gets new sockets
    beside,  ///< the device of that index is served by another process until adopt()
  };

  /// @param way      how the kernel reaches the image
  /// @param options  of a device
  explicit MountFrontEnd(MountWay way, NbdDeviceOptions options = {})
      : way_(way), options_(std::move(options)) {}

  [[nodiscard]] bool is_device() const noexcept { return is_nbd(way_); }

  /// The device; null: there is none, or it is FUSE.
  [[nodiscard]] RelayedDevice const* device() const noexcept { return device_.get(); }

  /// The connection; empty: there is none, or it is a device.
  [[nodiscard]] std::optional<FuseConnection> const& connection() const noexcept {
    return connection_;
  }

  // --- coming about ------------------------------------------------------------------------------

  /// Sets a device up. What earlier devices of this object have read counts for it, too.
  /// @param index  for Attach::again and beside
  /// @error{as the connect's attach() says}
  [[nodiscard]] Result<void> attach(WorkerImage const& image, Attach how,
                                    std::optional<std::uint32_t> index) {
    Export served;
    served.size = image.size;
    served.zeros_from = image.zeros_from;
    auto connect = way_ == MountWay::ioctl ? RelayedDevice::Connect(IoctlConnect(options_))
                   : how == Attach::anew
                       ? RelayedDevice::Connect(NetlinkConnect(options_))
                       : RelayedDevice::Connect(NetlinkConnect::to_device(*index, options_));
    EROFS_OCI_TRY_ASSIGN(
        auto device,
        how == Attach::beside
            ? RelayedDevice::beside(std::move(connect), std::move(served), image.sample)
            : RelayedDevice::open(std::move(connect), std::move(served), image.sample));
    device_ = std::make_unique<RelayedDevice>(std::move(device));
    device_->expect(sample_);
    return {};
  }

  /// The connection that a worker serves, with its requests in flight.
  /// @error{as FuseInflight::map(), as there}
  [[nodiscard]] Result<void> set(FuseConnection connection) {
    EROFS_OCI_TRY(duplicate(connection.inflight.get()).and_then(FuseInflight::map));
    connection_ = std::move(connection);
    return {};
  }

  // --- workers -----------------------------------------------------------------------------------

  /// What the next worker serves: for a device, that of RelayedDevice::next_worker(); for FUSE the
  /// connection, or nothing if the worker is to mount.
  /// @error{as RelayedDevice::next_worker() and to_message() say}
  [[nodiscard]] Result<MountMessage> port() {
    if (connection_) return to_message(MountMessage::Kind::port, *connection_);
    MountMessage message{MountMessage::Kind::port, {}, {}, {}};
    if (!device_) return message;
    EROFS_OCI_TRY_ASSIGN(auto port, device_->next_worker());
    message.fds.push_back(std::move(port.channel));
    message.fds.push_back(std::move(port.arena));
    return message;
  }

  /// Compares what the newest worker reads from a device with what the first one read.
  /// @param done  see RelayedDevice::verify_worker()
  void verify(std::function<void(Result<void>)> done) { device_->verify_worker(std::move(done)); }

  /// The same for SupervisorHooks::verify.
  /// @param tell  gets what verify() yields
  /// @error{Errc::unavailable, there is no device any more}
  [[nodiscard]] Result<UniqueFd> begin_verify(std::function<void(Result<void> const&)> tell) {
    if (!device_) return fail(Errc::unavailable, "there is no device");
    std::array<int, 2> fds{};
    if (::pipe2(fds.data(), O_CLOEXEC | O_NONBLOCK) != 0) return fail_errno(errno, "pipe");
    UniqueFd verdict(fds[0]);
    auto const end = std::make_shared<UniqueFd>(fds[1]);
    device_->verify_worker([end, tell = std::move(tell)](Result<void> const& ok) {
      tell(ok);
      auto const unknown = !ok && ok.error().code != Errc::mismatch;
      char const byte = ok ? '1' : '0';
      if (!unknown) [[maybe_unused]]
        auto const n = ::write(end->get(), &byte, 1);
    });
    return verdict;
  }

  /// The worker is dead and reaped: what it had not answered is for the next one.
  void drop_worker(EngineEnd how) {
    if (device_) device_->drop_worker(how);
  }

  /// The worker has ended by what it was asked: requests in flight are suspects.
  void note_crash() const {
    if (!connection_) return;
    auto const inflight = duplicate(connection_->inflight.get()).and_then(FuseInflight::map);
    if (inflight) inflight->note_crash();
  }

  /// Closes a device's workers' channels, which ends them.
  void dismiss() noexcept {
    if (device_) device_->dismiss();
  }

  /// Whether the kernel waits for a worker of a device.
  [[nodiscard]] bool has_reads() const { return device_ && device_->relay().in_flight() != 0; }

  // --- handover ----------------------------------------------------------------------------------

  void pause() noexcept {
    if (device_) device_->pause();
  }

  [[nodiscard]] bool is_idle() const noexcept { return device_ && device_->is_idle(); }

  /// Gives a device's sockets away, or a copy of a connection.
  /// @error{as RelayedDevice::release() and to_message() say}
  [[nodiscard]] Result<MountMessage> release() {
    return device_ ? device_->release() : to_message(MountMessage::Kind::connected, *connection_);
  }

  /// Serves again.
  /// @param message  of release(), if it has succeeded
  /// @error{as RelayedDevice::resume() says}
  [[nodiscard]] Result<void> resume(std::optional<MountMessage> message) {
    return device_ ? device_->resume(std::move(message)) : Result<void>();
  }

  /// Takes over what another process has given by release().
  /// @error{Errc::protocol, the message holds no such thing}
  [[nodiscard]] Result<void> adopt(MountMessage message) {
    if (device_) return device_->adopt(std::move(message));
    EROFS_OCI_TRY_ASSIGN(connection_, connection_of(std::move(message)));
    return {};
  }

  // --- the end -----------------------------------------------------------------------------------

  /// Makes the last unmount end a device; yields a warning or nothing.
  [[nodiscard]] std::string settle() { return device_ ? device_->settle() : std::string(); }

  /// Forgets a device whose sockets are closed; attach() connects it again.
  void lose() {
    sample_ = device_->sample();
    device_.reset();
  }

  /// Unmounts it; may wait for reads of the mount.
  /// @param mount  the number of the mount; see erofs_oci::unmount()
  /// @error{as erofs_oci::unmount()}
  [[nodiscard]] static Result<void> unmount(std::string const& target, UnmountBusy busy,
                                            std::optional<std::uint64_t> mount) {
    return erofs_oci::unmount(target, busy, "fusermount3", mount);
  }

  /// Disconnects the device, or detaches the FUSE file system, also while processes use it.
  /// @param target  where it is mounted; or empty
  /// @param mount   as for unmount(). Empty: a FUSE file system stays, and its reads fail
  void end(std::string const& target, std::optional<std::uint64_t> mount) {
    if (device_) device_->detach();
    if (is_device() || target.empty() || !mount) return;
    static_cast<void>(unmount(target, UnmountBusy::detach, mount));
  }

  /// Disconnects a device and waits, up to 2 s, until the kernel has let go of it; yields whether
  /// it has.
  [[nodiscard]] bool disconnect() {
    auto const index = device_->index();
    device_->detach();
    device_.reset();  // a device that was set up by ioctl(2) is held by the process that did it
    return wait_for(std::chrono::seconds(2), [&] { return !nbd_attribute(index, "pid"); });
  }

  /// @name In a poll(2) loop
  /// @{
  void watch(std::vector<pollfd>& fds) const {
    if (device_) device_->watch(fds);
  }
  void act(std::span<pollfd const> fds) {
    if (device_) device_->act(fds);
  }
  /// @}

 private:
  MountWay way_;
  NbdDeviceOptions options_;
  std::unique_ptr<RelayedDevice> device_;
  std::optional<Digest> sample_;  // of the device before this one
  std::optional<FuseConnection> connection_;
};

}  // namespace erofs_oci
