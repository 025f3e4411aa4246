// SPDX-License-Identifier: Apache-2.0
/// @file
/// Placement: where a tarindex wants the tar that it describes.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/format.hpp>

namespace erofs_oci {

/// Where on the combined device the data of a tarindex lies, in bytes.
struct Placement {
  std::uint64_t begin = 0;       ///< the tarindex's own size
  std::uint64_t end = 0;         ///< the device's size; a multiple of the block size
  std::uint64_t block_size = 0;  ///< of the file system

  /// Of the one device in the table.
  /// @param superblock  of the same image
  /// @error{Errc::corrupt, no place\, or one beyond 2^63}
  [[nodiscard]] static Result<Placement> of(erofs::Superblock const& superblock,
                                            erofs::DeviceSlot const& slot) {
    std::uint64_t blocks = slot.blocks_low;
    std::uint64_t first = slot.first_block_low;
    if (superblock.has(erofs::incompat::wide_addresses)) {
      blocks |= std::uint64_t{slot.blocks_high} << 32;
      first |= std::uint64_t{slot.first_block_high} << 32;
    }
    if (first == 0) return fail(Errc::corrupt, "device 1 has no address (uniaddr is 0)");
    auto const block_size = std::uint64_t{1} << superblock.block_bits;
    auto const end = checked_mul(first + blocks, block_size);  // a sum of two numbers of 48 bits
    if (!end || *end > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return fail(Errc::corrupt, "device 1 ends at block " + std::to_string(first + blocks) +
                                     ", where no device can end");
    }
    return Placement{first * block_size, *end, block_size};
  }
};

/// Reads the superblock of an image and checks it.
/// @error{Errc::mismatch, not an EROFS image}
/// @error{Errc::corrupt, its checksum is wrong\, or a block size that EROFS does not have}
[[nodiscard]] Result<erofs::Superblock> read_superblock(RandomAccessSource auto const& image) {
  std::array<std::byte, erofs::Superblock::on_disk_size> raw{};
  if (image.size() < erofs::superblock_offset + raw.size()) {
    return fail(Errc::mismatch,
                std::to_string(image.size()) + " bytes are too few for an EROFS image");
  }
  auto ok = read_exact(image, erofs::superblock_offset, raw);
  if (!ok) return fail(ok.error());
  auto const superblock = erofs::Superblock::decode(raw);
  if (superblock.magic != erofs::magic) {
    return fail(Errc::mismatch, "offset 1024: no EROFS superblock");
  }
  if (superblock.block_bits < 9 || superblock.block_bits > 16) {
    return fail(Errc::corrupt,
                "offset 1036: block size 2^" + std::to_string(superblock.block_bits));
  }
  if ((superblock.feature_compat & erofs::compat::checksum) == 0) return superblock;

  Bytes covered(static_cast<std::size_t>(superblock.checksum_length()));
  ok = read_exact(image, erofs::superblock_offset, covered);
  if (!ok) return fail(ok.error(), "superblock checksum");
  std::ranges::fill(std::span(covered).subspan(4, 4), std::byte{0});
  if (erofs::crc32c(covered) != superblock.checksum) {
    return fail(Errc::corrupt, "offset 1028: wrong checksum of the EROFS superblock");
  }
  return superblock;
}

/// Reads where a tarindex wants its tar, and checks that this is right behind it.
/// @error{Errc::mismatch, no tarindex: not EROFS\, not exactly one device\, or cut short}
/// @error{Errc::corrupt, as read_superblock() and Placement::of()}
[[nodiscard]] Result<Placement> read_placement(RandomAccessSource auto const& tarindex) {
  auto const superblock = read_superblock(tarindex);
  if (!superblock) return fail(superblock.error());
  auto const devices =
      superblock->has(erofs::incompat::device_table) ? superblock->extra_devices : 0;
  if (devices != 1) {
    return fail(Errc::mismatch, "an EROFS image with " + std::to_string(devices) +
                                    " extra devices; a tarindex of one layer has 1");
  }
  std::array<std::byte, erofs::DeviceSlot::on_disk_size> raw{};
  auto const at = std::uint64_t{superblock->device_table_slot} * raw.size();
  auto const where = "device table at offset " + std::to_string(at);
  if (auto const ok = read_exact(tarindex, at, raw); !ok) return fail(ok.error(), where);
  auto const place = Placement::of(*superblock, erofs::DeviceSlot::decode(raw));
  if (!place) return fail(place.error(), where);
  if (place->begin != tarindex.size()) {
    return fail(Errc::mismatch, "it has " + std::to_string(tarindex.size()) +
                                    " bytes, but places its data at offset " +
                                    std::to_string(place->begin));
  }
  return place;
}

}  // namespace erofs_oci
