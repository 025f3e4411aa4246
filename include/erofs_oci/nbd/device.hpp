// SPDX-License-Identifier: Apache-2.0
/// @file
/// NbdDeviceOptions, and the attributes of the kernel's nbd devices in sysfs.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/posix/text_file.hpp>

namespace erofs_oci {

/// How a device of the kernel is set up.
struct NbdDeviceOptions {
  /// Logical block size, in bytes: a power of 2 in [512, page size]. Must not exceed the file
  /// system's, and must divide the export's size. Default: 512.
  std::uint32_t block_size = 512;
  /// Sockets, each with a queue of its own in the kernel. Default: 1, the only number for which a
  /// `request_timeout` of 0 means never; the server overlaps the requests of one socket anyway.
  std::uint32_t sockets = 1;
  /// The kernel gives a socket up whose request takes longer. 0: never; not with `sockets` > 1.
  /// @spec{Linux drivers/block/nbd.c, nbd_xmit_timeout}
  std::chrono::seconds request_timeout{0};
  /// How long requests wait for a takeover after the server's death before they fail. Netlink only.
  std::chrono::seconds dead_connection_timeout{300};
  /// The identifier that a later server must give to take the device over; empty: none. Netlink
  /// only.
  std::string backend{};
};

/// Checks what the kernel would refuse or, worse, round down.
/// @error{Errc::invalid_argument, a size or number that no device can have}
[[nodiscard]] inline Result<void> check(NbdDeviceOptions const& options, Export const& served) {
  auto const block = options.block_size;
  auto const page = static_cast<std::uint32_t>(::sysconf(_SC_PAGESIZE));
  if (block < 512 || block > page || (block & (block - 1)) != 0) {
    return fail(Errc::invalid_argument, "nbd device: block size " + std::to_string(block));
  }
  if (served.size == 0 || served.size % block != 0) {
    return fail(Errc::invalid_argument, "nbd device: size " + std::to_string(served.size) +
                                            " is not a positive multiple of the block size " +
                                            std::to_string(block));
  }
  if (options.sockets == 0) return fail(Errc::invalid_argument, "nbd device: no socket");
  if (options.sockets > 1 && options.request_timeout.count() == 0) {
    return fail(Errc::invalid_argument,
                "nbd device: more than one socket needs a request timeout, or the kernel gives "
                "slow ones up after 30 s");
  }
  return {};
}

/// @name Devices by number
/// Paths of the host; `root` is for tests.
/// @{

/// The block device: /dev/nbdN.
[[nodiscard]] inline std::string nbd_device_path(std::uint32_t index) {
  return "/dev/nbd" + std::to_string(index);
}

/// The inverse; empty for any other path.
[[nodiscard]] inline std::optional<std::uint32_t> nbd_index_of_path(std::string_view path) {
  constexpr std::string_view begin = "/dev/nbd";
  if (!path.starts_with(begin)) return std::nullopt;
  return whole_number<std::uint32_t>(path.substr(begin.size()));
}

/// What the kernel shows of it: /sys/block/nbdN.
[[nodiscard]] inline std::string nbd_sysfs_path(std::uint32_t index,
                                                std::string_view root = "/sys/block") {
  return std::string(root) + "/nbd" + std::to_string(index);
}

/// A sysfs attribute without the newline at its end: "size", "pid", "backend".
/// @error{std::errc::no_such_file_or_directory, the device or the attribute does not exist}
[[nodiscard]] inline Result<std::string> nbd_attribute(std::uint32_t index, std::string_view name,
                                                       std::string_view root = "/sys/block") {
  return read_text_value(nbd_sysfs_path(index, root) + '/' + std::string(name));
}

/// How far the kernel reads ahead of a sequential reader, in KiB. A remote source wants more than
/// the kernel's 128; the usual request becomes as long.
/// @error{an errno, as open(2) and write(2)}
[[nodiscard]] inline Result<void> set_nbd_read_ahead(std::uint32_t index, std::uint32_t kib,
                                                     std::string_view root = "/sys/block") {
  return write_text_file(nbd_sysfs_path(index, root) + "/queue/read_ahead_kb", std::to_string(kib));
}

/// The numbers of all devices, ascending; none without the nbd module.
[[nodiscard]] inline std::vector<std::uint32_t> nbd_devices(std::string_view root = "/sys/block") {
  std::vector<std::uint32_t> found;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(root, error), end; !error && entry != end;
       entry.increment(error)) {
    auto const name = entry->path().filename().string();
    auto const digits = std::string_view(name).substr(std::min<std::size_t>(name.size(), 3));
    if (!name.starts_with("nbd") || digits.empty() || digits.size() > 6) continue;
    if (digits.find_first_not_of("0123456789") != digits.npos) continue;
    found.push_back(static_cast<std::uint32_t>(std::stoul(std::string(digits))));
  }
  std::ranges::sort(found);
  return found;
}

/// Whether sysfs shows that no process has set the device up. Another process may do so at any
/// time.
[[nodiscard]] inline bool nbd_looks_free(std::uint32_t index,
                                         std::string_view root = "/sys/block") {
  return !nbd_attribute(index, "pid", root) && !nbd_attribute(index, "backend", root);
}

/// Whether a file system is mounted from the device, in any mount namespace, or another process has
/// opened it exclusively. May block until the device answers.
[[nodiscard]] inline bool nbd_is_in_use(std::uint32_t index) {
  auto const path = nbd_device_path(index);
  UniqueFd const fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_EXCL));
  return !fd && errno == EBUSY;
}
/// @}

namespace nbd::detail {

/// As many pairs of connected sockets as wanted: ours in the first list, the kernel's in the other.
[[nodiscard]] inline Result<std::pair<std::vector<UniqueFd>, std::vector<UniqueFd>>> socket_pairs(
    std::uint32_t count) {
  std::pair<std::vector<UniqueFd>, std::vector<UniqueFd>> pairs;
  for (std::uint32_t i = 0; i < count; ++i) {
    EROFS_OCI_TRY_ASSIGN(auto pair, socket_pair());
    int const size = 1024 * 1024;  // for replies; best effort, it only makes them faster
    ::setsockopt(pair.first.get(), SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    pairs.first.push_back(std::move(pair.first));
    pairs.second.push_back(std::move(pair.second));
  }
  return pairs;
}

}  // namespace nbd::detail

}  // namespace erofs_oci
