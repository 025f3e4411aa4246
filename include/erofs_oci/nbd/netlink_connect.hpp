// SPDX-License-Identifier: Apache-2.0
/// @file
/// NetlinkConnect: a device of the kernel's nbd client, set up over netlink.
#pragma once

#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <sys/socket.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/nbd/netlink.hpp>

namespace erofs_oci {

/// Connects a source to /dev/nbdN. The kernel chooses N, and keeps the device for a while when the
/// server dies: a later server takes it over with `to_device`.
///
/// @par Thread safety
/// negotiate() from any thread. The members that speak of the device: once attach() has returned,
/// or NbdServer has called `ready`, one thread at a time.
class NetlinkConnect {
 public:
  static constexpr bool listens = false;

  /// For any free device.
  explicit NetlinkConnect(NbdDeviceOptions options = {}) : options_(std::move(options)) {}

  /// For a device that lost its server: gives it new sockets. `options.backend` must be what the
  /// device was set up with; size and flags stay as they were.
  [[nodiscard]] static NetlinkConnect to_device(std::uint32_t index,
                                                NbdDeviceOptions options = {}) {
    NetlinkConnect connect(std::move(options));
    connect.index_ = index;
    return connect;
  }

  /// NbdConnect: sets the device up; empty at the second call.
  /// @error{Errc::unsupported, the nbd module is not loaded}
  /// @error{Errc::invalid_argument, a size or option that no device can have}
  /// @error{std::errc::device_or_resource_busy, to_device(): its server still lives}
  /// @error{an errno, as the kernel answers}
  [[nodiscard]] Result<std::vector<UniqueFd>> attach(Export const& served, std::stop_token) {
    if (std::exchange(attached_, true)) return std::vector<UniqueFd>{};
    EROFS_OCI_TRY(check(options_, served));
    EROFS_OCI_TRY_ASSIGN(auto pairs, nbd::detail::socket_pairs(options_.sockets));
    EROFS_OCI_TRY_ASSIGN(auto netlink, NbdNetlink::open());
    std::vector<int> theirs;
    for (auto const& fd : pairs.second) theirs.push_back(fd.get());
    if (index_) {
      EROFS_OCI_TRY(netlink.reconfigure(
          *index_, {.backend = options_.backend, .sockets = std::move(theirs)}));
      pairs.second.clear();  // so that a socket that the kernel did not take shows its end
      return taken(std::move(pairs.first));
    }
    EROFS_OCI_TRY_ASSIGN(index_, netlink.connect(served, options_, theirs));
    return std::move(pairs.first);  // the kernel's ends are closed here; it has its own
  }

  /// NbdConnect: the kernel has nothing to say.
  [[nodiscard]] Result<std::optional<Negotiated>> negotiate(int, Export const&,
                                                            std::stop_token) const {
    return std::optional(Negotiated{});
  }

  /// NbdConnect: disconnects the device.
  void detach() noexcept {
    if (!index_) return;
    auto netlink = NbdNetlink::open();
    // An error leaves the device without a server, which the kernel ends by itself after a while.
    if (netlink) static_cast<void>(netlink->disconnect(*index_));
  }

  /// N of /dev/nbdN; only once it is attached.
  [[nodiscard]] std::uint32_t index() const noexcept {
    assert(index_);
    return *index_;
  }

  /// /dev/nbdN; only once it is attached.
  [[nodiscard]] std::string device() const { return nbd_device_path(index()); }

  /// Makes the last close of the device disconnect it: call it once the mount holds the device,
  /// since udev opens and closes it before.
  /// @error{an errno, as the kernel answers}
  [[nodiscard]] Result<void> set_disconnect_on_close() {
    EROFS_OCI_TRY_ASSIGN(auto netlink, NbdNetlink::open());
    return netlink.reconfigure(
        index(), {.backend = options_.backend, .client_flags = NBD_CFLAG_DISCONNECT_ON_CLOSE});
  }

 private:
  /// The sockets that RECONFIGURE did take: it says nothing of those that it drops because no
  /// connection of the device is dead.
  /// @spec{Linux drivers/block/nbd.c, nbd_reconnect_socket}
  Result<std::vector<UniqueFd>> taken(std::vector<UniqueFd> sockets) const {
    std::erase_if(sockets, [](UniqueFd const& fd) {
      std::byte byte{};
      return ::recv(fd.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
    });
    if (sockets.empty()) {
      return fail_errno(EBUSY, nbd_device_path(*index_) + " is served already");
    }
    return sockets;
  }

  NbdDeviceOptions options_;
  std::optional<std::uint32_t> index_;
  bool attached_ = false;
};

static_assert(NbdConnect<NetlinkConnect>);

}  // namespace erofs_oci
