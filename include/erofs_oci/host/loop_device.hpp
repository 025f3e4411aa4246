// SPDX-License-Identifier: Apache-2.0
/// @file
/// LoopDevice: a file as a read-only block device.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/wait.hpp>

namespace erofs_oci {

/// Whether the pages of the file are cached below those of the device.
enum class LoopCache : std::uint8_t {
  buffered,  ///< through the file's page cache
  direct,    ///< past it, if the file can be read that way: nothing is cached twice
};

/// An open loop device over a file. The kernel frees it with its last user: this object, or what
/// was mounted from it meanwhile.
class LoopDevice {
 public:
  /// Takes any free device.
  /// @error{Errc::unsupported, there is no /dev/loop-control}
  /// @error{std::errc::device_or_resource_busy, others took each device that was free}
  /// @error{an errno, as open(2) and ioctl(2) LOOP_CONFIGURE}
  [[nodiscard]] static Result<LoopDevice> open(std::string const& file,
                                               LoopCache cache = LoopCache::buffered) {
    EROFS_OCI_TRY_ASSIGN(auto const backing, open_read(file), "loop device");
    UniqueFd const control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    if (!control && (errno == ENOENT || errno == ENODEV)) {
      return fail(Errc::unsupported,
                  "/dev/loop-control: there are no loop devices (load them: modprobe loop)");
    }
    if (!control) return fail_errno(errno, "/dev/loop-control");
    // Another process may take a free device before this one does.
    Result<LoopDevice> device = fail_errno(EBUSY, "loop device");
    auto const is_decided = [&] {
      device = take_free(control.get(), backing.get(), cache);
      return device || (device.error().code != std::errc::device_or_resource_busy &&
                        device.error().code != std::errc::no_such_device_or_address);
    };
    if (!wait_for(std::chrono::seconds(1), is_decided)) {
      return fail_errno(EBUSY, file + ": every free loop device was taken by others");
    }
    if (!device) return fail(std::move(device).error(), file);
    return device;
  }

  /// "/dev/loop3".
  [[nodiscard]] std::string const& path() const noexcept { return path_; }

 private:
  LoopDevice(UniqueFd device, std::string path) noexcept
      : device_(std::move(device)), path_(std::move(path)) {}

  [[nodiscard]] static Result<LoopDevice> take_free(int control, int backing, LoopCache cache) {
    auto const number = ::ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0) return fail_errno(errno, "a free loop device");
    auto path = "/dev/loop" + std::to_string(number);
    UniqueFd device(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!device) {
      auto const hint = errno == ENOENT ? " (the kernel made it, but no node is in this /dev)" : "";
      return fail_errno(errno, path + hint);
    }
    loop_config config{};
    config.fd = static_cast<__u32>(backing);
    config.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    if (cache == LoopCache::direct) config.info.lo_flags |= LO_FLAGS_DIRECT_IO;
    if (::ioctl(device.get(), LOOP_CONFIGURE, &config) == 0) {
      return LoopDevice(std::move(device), std::move(path));
    }
    return fail_errno(errno, path);
  }

  UniqueFd device_;
  std::string path_;
};

}  // namespace erofs_oci
