// SPDX-License-Identifier: Apache-2.0
/// @file
/// IoctlConnect: a device of the kernel's nbd client, set up with ioctl(2).
#pragma once

#include <array>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/nbd.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/posix/wait.hpp>

namespace erofs_oci {

/// Connects a source to a free /dev/nbdN, on kernels without nbd over netlink. The device ends with
/// the server: no takeover is possible.
///
/// @par Thread safety
/// negotiate() from any thread. index() and device() once attach() has returned. Destroyed only
/// when no socket that attach() made is open any more: it waits for the kernel to let go.
class IoctlConnect {
 public:
  static constexpr bool listens = false;

  explicit IoctlConnect(NbdDeviceOptions options = {}) : options_(std::move(options)) {}

  /// NbdConnect: sets a free device up, and returns once it has its size; empty at the second call.
  /// @error{Errc::unsupported, there are no nbd devices}
  /// @error{Errc::invalid_argument, a size or option that no device can have}
  /// @error{std::errc::device_or_resource_busy, every device is in use}
  /// @error{an errno, as open(2) and the ioctls}
  [[nodiscard]] Result<std::vector<UniqueFd>> attach(Export const& served, std::stop_token) {
    if (device_) return std::vector<UniqueFd>{};
    EROFS_OCI_TRY(check(options_, served));
    EROFS_OCI_TRY_ASSIGN(auto pairs, nbd::detail::socket_pairs(options_.sockets));
    auto const first = pairs.second.front().get();
    EROFS_OCI_TRY_ASSIGN(auto fd, claim(first));
    // From here on the device is ours, and closing it gives it back.
    auto const ok = set_up(fd.second.get(), served, pairs.second);
    if (!ok) {
      ::ioctl(fd.second.get(), NBD_CLEAR_SOCK);
      return fail(ok.error(), nbd_device_path(fd.first));
    }
    device_ = std::make_unique<Device>(fd.first, std::move(fd.second));
    pairs.second.clear();
    if (auto const up = wait_until_up(); !up) {
      pairs.first.clear();  // ends DO_IT
      device_.reset();
      return fail(up.error());
    }
    return std::move(pairs.first);
  }

  /// NbdConnect: the kernel's client has no handshake.
  [[nodiscard]] Result<std::optional<Negotiated>> negotiate(int, Export const&,
                                                            std::stop_token) const {
    return std::optional(Negotiated{});
  }

  /// NbdConnect: disconnects the device.
  void detach() noexcept {
    if (device_) ::ioctl(device_->fd.get(), NBD_DISCONNECT);
  }

  /// N of /dev/nbdN; only once it is attached.
  [[nodiscard]] std::uint32_t index() const noexcept {
    assert(device_);
    return device_->index;
  }

  /// /dev/nbdN; only once it is attached.
  [[nodiscard]] std::string device() const { return nbd_device_path(index()); }

 private:
  /// A device and the thread that runs NBD_DO_IT for its life.
  struct Device {
    Device(std::uint32_t n, UniqueFd device_fd) : index(n), fd(std::move(device_fd)) {
      // A signal would end DO_IT, and the device: the program's other threads take them.
      sigset_t all;
      sigset_t before;
      ::sigfillset(&all);
      ::pthread_sigmask(SIG_SETMASK, &all, &before);
      thread = std::jthread([this] {
        // An error of DO_IT only means that the device is gone, which the sessions see too.
        if (::ioctl(fd.get(), NBD_DO_IT) != 0) error = errno;
        ended = true;
      });
      ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    std::uint32_t index;
    UniqueFd fd;
    std::atomic<int> error = 0;
    std::atomic<bool> ended = false;
    std::jthread thread;  // last: joined first
  };

  /// The first device that takes our socket. SET_SOCK is the only safe test, so it comes before
  /// everything that would change a device of another process; never CLEAR_SOCK, which would end
  /// it.
  /// @spec{Linux drivers/block/nbd.c, nbd_add_socket: EBUSY unless this task set the device up}
  static Result<std::pair<std::uint32_t, UniqueFd>> claim(int socket) {
    auto const devices = nbd_devices();
    if (devices.empty()) {
      return fail(Errc::unsupported, "the kernel has no nbd devices (load them: modprobe nbd)");
    }
    Error last{make_error_code(std::errc::device_or_resource_busy), "every nbd device"};
    for (auto const index : devices) {
      if (!nbd_looks_free(index)) continue;
      auto const path = nbd_device_path(index);
      UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
      if (fd && ::ioctl(fd.get(), NBD_SET_SOCK, static_cast<unsigned long>(socket)) == 0) {
        return std::pair(index, std::move(fd));
      }
      last = Error{std::error_code(errno, std::system_category()), path};
    }
    return fail(std::move(last));
  }

  Result<void> set_up(int fd, Export const& served, std::vector<UniqueFd> const& sockets) const {
    auto const set = [fd](unsigned long request, unsigned long value, char const* name) {
      return ::ioctl(fd, request, value) == 0 ? Result<void>() : fail_errno(errno, name);
    };
    for (auto const& socket : std::span(sockets).subspan(1)) {
      EROFS_OCI_TRY(set(NBD_SET_SOCK, static_cast<unsigned long>(socket.get()), "NBD_SET_SOCK"));
    }
    EROFS_OCI_TRY(set(NBD_SET_BLKSIZE, options_.block_size, "NBD_SET_BLKSIZE"));
    EROFS_OCI_TRY(
        set(NBD_SET_SIZE_BLOCKS, served.size / options_.block_size, "NBD_SET_SIZE_BLOCKS"));
    auto const timeout = static_cast<unsigned long>(options_.request_timeout.count());
    EROFS_OCI_TRY(set(NBD_SET_TIMEOUT, timeout, "NBD_SET_TIMEOUT"));
    return set(NBD_SET_FLAGS, served.flags, "NBD_SET_FLAGS");
  }

  /// Waits until DO_IT, in its own thread, has set the device up.
  Result<void> wait_until_up() const {
    auto const is_decided = [&] {
      auto const size = nbd_attribute(index(), "size");
      return device_->ended || (nbd_attribute(index(), "pid") && size && *size != "0");
    };
    if (!wait_for(std::chrono::seconds(5), is_decided, std::chrono::milliseconds(1))) {
      return fail(Errc::timed_out, device() + " does not come up");
    }
    if (!device_->ended) return {};
    return fail_errno(device_->error != 0 ? device_->error.load() : EIO, device() + ": NBD_DO_IT");
  }

  NbdDeviceOptions options_;
  std::unique_ptr<Device> device_;
};

static_assert(NbdConnect<IoctlConnect>);

}  // namespace erofs_oci
