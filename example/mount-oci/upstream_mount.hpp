// SPDX-License-Identifier: Apache-2.0
/// @file
/// Mounts that mount.erofs of erofs-utils has made and left behind.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/recovery/record_fields.hpp>
#include <erofs_oci/recovery/upstream_record.hpp>

#include "options.hpp"
#include "process.hpp"

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
  std::string backend;      ///< what the kernel wants to hear before it takes new sockets
  std::string path;         ///< of the record
  erofs_oci::UpstreamRecord record;
};

/// How many bytes mount.erofs makes every device, whatever is on it.
inline constexpr std::uint64_t upstream_device_size = 0x7FFF'FFFF'FFFF'FE00;

/// How long a device of mount.erofs waits for its next daemon.
inline constexpr std::chrono::seconds upstream_dead_timeout = std::chrono::days(30);

/// Looks for the record of a device by the identifier that the kernel keeps for it; where it keeps
/// none, by the device's number. Empty: no device of mount.erofs.
///
/// What sysfs says is not trusted: the record is a plain name in one of the directories, which, as
/// the one above and the record itself, belongs to this user and is open to nobody else. No
/// symbolic link is followed.
/// @error{Errc::not_found, the device is its own\, but the record is gone}
/// @error{std::errc::permission_denied, others could have written it}
/// @error{as JournalDirectory::open_existing() and parse_upstream_record(), as they say}
[[nodiscard]] Result<std::optional<UpstreamMount>> find_upstream_mount(
    std::uint32_t index, UpstreamPlaces const& places = {});

/// What a user would have said to mount the same.
/// @param given  how to reach it, credentials among that; also the tarindex and zinfo of a layer,
///               whose record may not name them
/// @error{Errc::unsupported, an object of S3}
/// @error{Errc::invalid_argument, not a reference}
[[nodiscard]] Result<ImageOptions> options_of(erofs_oci::UpstreamRecord const& record,
                                              ImageOptions given);

/// Whether the device of a record was set up by another tool.
[[nodiscard]] inline bool is_foreign(erofs_oci::Record const& record) noexcept {
  return record.attach.backend.starts_with('/');
}

/// Zeros behind an image, as far as a device of mount.erofs can reach: the kernel reads whole
/// pages.
[[nodiscard]] Result<erofs_oci::AnySource> pad_for_upstream(erofs_oci::AnySource image);

}  // namespace mount_oci
