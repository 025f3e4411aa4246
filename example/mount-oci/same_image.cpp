// SPDX-License-Identifier: Apache-2.0
#include "same_image.hpp"

#include <array>
#include <bit>
#include <cerrno>
#include <span>

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/superblock.hpp>
#include <erofs_oci/nbd/device.hpp>

#include "mount_table.hpp"
#include "upstream_mount.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::fail;
using erofs_oci::fail_errno;
namespace erofs = erofs_oci::erofs;

/// A device number as the kernel gives it to user space: what f_fsid is where it is not the UUID.
std::uint64_t encoded(dev_t device) {
  std::uint64_t const low = minor(device);
  return (low & 0xff) | std::uint64_t{major(device)} << 8 | (low & ~std::uint64_t{0xff}) << 12;
}

std::uint64_t fold(std::span<std::byte const, 16> uuid) {
  return erofs_oci::load_le<std::uint64_t>(uuid.first<8>()) ^
         erofs_oci::load_le<std::uint64_t>(uuid.last<8>());
}

/// Of image and devices. The high halves of 48-bit addresses are not summed alike by all kernels.
Result<std::optional<std::uint64_t>> count_blocks(AnySource const& image,
                                                  erofs::Superblock const& superblock) {
  if (superblock.has(erofs::incompat::wide_addresses)) return std::optional<std::uint64_t>();
  auto const count = superblock.has(erofs::incompat::device_table) ? superblock.extra_devices : 0U;
  std::uint64_t blocks = superblock.blocks();
  std::array<std::byte, erofs::DeviceSlot::on_disk_size> raw{};
  for (std::uint32_t i = 0; i < count; ++i) {
    auto const at = (std::uint64_t{superblock.device_table_slot} + i) * raw.size();
    EROFS_OCI_TRY(read_exact(image, at, raw), "device table");
    blocks += erofs::DeviceSlot::decode(raw).blocks_low;
  }
  return std::optional(blocks);
}

Result<void> compare(char const* what, std::uint64_t image, std::uint64_t mounted) {
  if (image == mounted) return {};
  return fail(Errc::mismatch, std::string("another image is mounted: ") + what + " " +
                                  std::to_string(mounted) + ", not " + std::to_string(image));
}

}  // namespace

Result<ImageTraits> mounted_traits(std::string const& path, dev_t device) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return fail_errno(errno, path);
  struct statfs known{};
  if (::statfs(path.c_str(), &known) != 0) return fail_errno(errno, path);
  if (status.st_dev != device || static_cast<std::uint32_t>(known.f_type) != erofs::magic) {
    return fail(Errc::mismatch, path + ": something else is mounted there by now");
  }
  ImageTraits traits{static_cast<std::uint64_t>(known.f_bsize), known.f_files - known.f_ffree,
                     known.f_blocks, std::nullopt};
  auto const id = std::bit_cast<std::uint64_t>(known.f_fsid);  // its two halves, the low one first
  if (id != encoded(device)) traits.uuid = id;
  return traits;
}

Result<ImageTraits> image_traits(AnySource const& image) {
  EROFS_OCI_TRY_ASSIGN(auto const superblock, erofs_oci::erofs::read_superblock(image));
  EROFS_OCI_TRY_ASSIGN(auto const blocks, count_blocks(image, superblock));
  return ImageTraits{std::uint64_t{1} << superblock.block_bits, superblock.inodes, blocks,
                     fold(superblock.uuid)};
}

Result<void> compare_traits(ImageTraits const& image, ImageTraits const& mounted) {
  auto ok = compare("block size", image.block_size, mounted.block_size);
  if (ok) ok = compare("number of inodes", image.inodes, mounted.inodes);
  if (ok && image.blocks && mounted.blocks) {
    ok = compare("number of blocks", *image.blocks, *mounted.blocks);
  }
  if (ok && image.uuid && mounted.uuid && *image.uuid != *mounted.uuid) {
    ok = fail(Errc::mismatch, "another image is mounted: its UUID is another one");
  }
  return ok;
}

Result<void> check_device_size(std::uint64_t image, std::uint64_t device) {
  if (device == image || device == upstream_device_size) return {};
  return fail(Errc::mismatch, "the image has " + std::to_string(image) + " bytes, the device " +
                                  std::to_string(device));
}

Result<std::uint64_t> nbd_device_bytes(std::uint32_t index, std::string const& root) {
  EROFS_OCI_TRY_ASSIGN(auto const text, erofs_oci::nbd_attribute(index, "size", root));
  constexpr std::uint64_t sector = 512;
  auto const sectors = erofs_oci::whole_number<std::uint64_t>(text);
  if (!sectors || *sectors > upstream_device_size / sector) {
    return fail(Errc::corrupt, erofs_oci::nbd_sysfs_path(index, root) + "/size: " + text);
  }
  return *sectors * sector;
}

Result<void> check_same_image(ForeignDevice const& device, AnySource const& image) {
  EROFS_OCI_TRY_ASSIGN(auto const size, nbd_device_bytes(device.index));
  auto const path = erofs_oci::nbd_device_path(device.index);
  EROFS_OCI_TRY(check_device_size(image.size(), size), path);
  EROFS_OCI_TRY_ASSIGN(auto const number, block_device(path));
  EROFS_OCI_TRY_ASSIGN(auto const mounted, mounted_traits(device.mount_point, number));
  EROFS_OCI_TRY_ASSIGN(auto const traits, image_traits(image), path);
  return compare_traits(traits, mounted);
}

}  // namespace mount_oci
