// SPDX-License-Identifier: Apache-2.0
/// @file
/// Compares an image with the one that is mounted from a device whose reads hang.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <sys/types.h>

#include <erofs_oci/core/any_source.hpp>

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// The fields of an EROFS superblock that statfs(2) yields without reading the image.
struct ImageTraits {
  std::uint64_t block_size = 0;         ///< bytes
  std::uint64_t inodes = 0;             ///< number
  std::optional<std::uint64_t> blocks;  ///< of image and devices; empty: kernels disagree
  std::optional<std::uint64_t> uuid;    ///< its two halves, one on the other; empty: not known

  friend bool operator==(ImageTraits const&, ImageTraits const&) = default;
};

/// Of what is mounted from a device at a path. Reads nothing from the device.
/// @param device  that must be mounted there
/// @error{Errc::mismatch, something else is mounted there}
/// @error{an errno, as stat(2) and statfs(2)}
/// @spec{Linux fs/erofs/super.c, erofs_statfs; the UUID is in f_fsid since 6.10}
[[nodiscard]] Result<ImageTraits> mounted_traits(std::string const& path, dev_t device);

/// Of an image.
/// @error{Errc::mismatch, not EROFS}
/// @error{as read_superblock(), as it says}
[[nodiscard]] Result<ImageTraits> image_traits(erofs_oci::AnySource const& image);

/// Compares what both know.
/// @error{Errc::mismatch, another image}
[[nodiscard]] Result<void> compare_traits(ImageTraits const& image, ImageTraits const& mounted);

/// Compares the size with that of the device.
/// @param device  bytes, as sysfs says; of a device of mount.erofs mostly upstream_device_size,
///                which says nothing
/// @error{Errc::mismatch, neither the image's nor that}
[[nodiscard]] Result<void> check_device_size(std::uint64_t image, std::uint64_t device);

/// The bytes of an NBD device.
/// @error{as nbd_attribute(); Errc::corrupt, no number}
[[nodiscard]] Result<std::uint64_t> nbd_device_bytes(std::uint32_t index,
                                                     std::string const& root = "/sys/block");

/// All of the above: refuses an image that is not the one that the device has mounted.
/// @error{Errc::mismatch, another one}
[[nodiscard]] Result<void> check_same_image(ForeignDevice const& device,
                                            erofs_oci::AnySource const& image);

}  // namespace mount_oci
