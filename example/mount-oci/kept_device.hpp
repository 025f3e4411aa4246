// SPDX-License-Identifier: Apache-2.0
/// @file
/// An NBD device whose readers can be replaced.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <poll.h>

#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/nbd/ioctl_connect.hpp>
#include <erofs_oci/nbd/netlink_connect.hpp>
#include <erofs_oci/nbd/relay.hpp>

#include "link.hpp"
#include "process.hpp"

namespace mount_oci {

/// The kernel's device and the relay in front of it. For one thread's poll(2) loop.
class KeptDevice {
 public:
  using Connect = std::variant<erofs_oci::NetlinkConnect, erofs_oci::IoctlConnect>;

  /// Sets the device up, or gives it new sockets.
  /// @error{as the connect's attach() says}
  [[nodiscard]] static Result<KeptDevice> open(Connect connect, erofs_oci::Export served);

  /// A device that another process keeps still; it has no sockets before adopt().
  /// @param connect  NetlinkConnect::to_device()
  [[nodiscard]] static Result<KeptDevice> beside(Connect connect, erofs_oci::Export served);

  /// Takes the sockets over that another process has released().
  /// @error{Errc::protocol, they are none}
  [[nodiscard]] Result<void> adopt(Message message);

  /// @name Giving the device to another process
  /// @{
  void pause() noexcept { relay_.pause(); }
  [[nodiscard]] bool is_idle() const noexcept { return relay_.is_idle(); }
  [[nodiscard]] Result<Message> release();
  /// The other process has not taken what release() gave: serves again.
  /// @error{as adopt() says}
  [[nodiscard]] Result<void> resume(Message message);
  /// @}

  /// N of nbdN.
  [[nodiscard]] std::uint32_t index() const;

  /// /dev/nbdN.
  [[nodiscard]] std::string path() const { return erofs_oci::nbd_device_path(index()); }

  /// What the next reader needs. The one before must be dead and reaped, or have been given up by
  /// drop_reader().
  [[nodiscard]] Result<erofs_oci::nbd::RelayPort> next_reader();

  /// The reader is dead and reaped.
  /// @param how  its end: whether what it was asked may be the cause
  void drop_reader(erofs_oci::EngineEnd how);

  /// Reads a little by the newest reader and compares it with what the first one read. If it is the
  /// same, requests go there from here on.
  /// @param done  gets the outcome, during act() or at once
  void verify_reader(std::function<void(Result<void>)> done);

  /// Makes the last unmount end the device, where the kernel can do that; yields a warning or
  /// nothing.
  [[nodiscard]] std::string settle();

  /// Disconnects the device; it ends soon.
  void detach() noexcept;

  /// Closes the readers' channels: they end.
  void dismiss() noexcept { relay_.close_engines(); }

  /// @name Its part of the poll(2) loop
  /// @{
  void watch(std::vector<pollfd>& fds) const { relay_.watch(fds); }
  void act(std::span<pollfd const> fds) { relay_.act(fds); }
  [[nodiscard]] std::optional<erofs_oci::NbdRelayEnd> ended() const noexcept {
    return relay_.ended();
  }
  /// @}

  [[nodiscard]] erofs_oci::NbdRelay const& relay() const noexcept { return relay_; }

  /// Whether the kernel has the device still.
  [[nodiscard]] bool is_connected() const;

  /// Whether a file system is mounted from it, in whatever mount namespace.
  [[nodiscard]] bool is_in_use() const;

 private:
  KeptDevice(Connect connect, erofs_oci::NbdRelay relay, std::uint64_t size)
      : connect_(std::move(connect)), relay_(std::move(relay)), size_(size) {}

  Connect connect_;
  erofs_oci::NbdRelay relay_;  // after `connect_`: its sockets are closed first
  std::uint64_t size_;
  erofs_oci::NbdRelay::EngineId reader_ = 0;  // the newest; 0: none
  std::optional<erofs_oci::Digest> sample_;
};

}  // namespace mount_oci
