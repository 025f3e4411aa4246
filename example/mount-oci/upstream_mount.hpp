// SPDX-License-Identifier: Apache-2.0
/// @file
/// Mounts of mount.erofs of erofs-utils whose daemon has died.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/recovery/record.hpp>

#include "options.hpp"
#include "process.hpp"
#include "upstream_record.hpp"

namespace mount_oci {

/// Where to look; other than the real places for tests.
struct UpstreamPlaces {
  /// Directories of its records. The first two are one where /var/run is a link, as it mostly is.
  std::vector<std::string> records{"/run/erofsmount/nbd", "/var/run/erofsmount/nbd"};
  std::string sysfs = "/sys/block";
};

/// A record of mount.erofs, and the device that it is of.
struct UpstreamMount {
  std::uint32_t index = 0;  ///< N of nbdN
  std::string backend;      ///< identifier that the kernel requires before it takes new sockets
  std::string path;         ///< of the record
  UpstreamRecord record;
};

/// The size that mount.erofs gives every device, in bytes.
inline constexpr std::uint64_t upstream_device_size = 0x7FFF'FFFF'FFFF'FE00;

/// How long the requests of a device of mount.erofs wait for a next daemon.
inline constexpr std::chrono::seconds upstream_dead_timeout = std::chrono::days(30);

/// Looks for the record of a device by the identifier that the kernel keeps for it; where it keeps
/// none, by the device's number. Empty: no device of mount.erofs.
///
/// sysfs is not trusted: the record must be a plain name in one of the directories; record,
/// directory and parent must belong to this user and be closed to others. Follows no symbolic link.
/// @error{Errc::not_found, the device is its own\, but the record is gone}
/// @error{std::errc::permission_denied, others could have written it}
/// @error{as JournalDirectory::open_existing() and parse_upstream_record(), as they say}
[[nodiscard]] Result<std::optional<UpstreamMount>> find_upstream_mount(
    std::uint32_t index, UpstreamPlaces const& places = {});

/// The options with which a user would mount the same image.
/// @param options  how to reach it, credentials among that; also the tarindex and zinfo of a layer,
///                 whose record may not name them
/// @error{Errc::unsupported, an object of S3}
/// @error{Errc::invalid_argument, not a reference}
[[nodiscard]] Result<ImageOptions> upstream_options(UpstreamRecord const& record,
                                                    ImageOptions options);

/// Whether the device of a record was set up by another tool.
[[nodiscard]] inline bool is_foreign(erofs_oci::Record const& record) noexcept {
  return record.attach.backend.starts_with('/');
}

/// Zeros behind an image, as far as a device of mount.erofs can reach: the kernel reads whole
/// pages.
[[nodiscard]] Result<erofs_oci::AnySource> pad_for_upstream(erofs_oci::AnySource image);

}  // namespace mount_oci
