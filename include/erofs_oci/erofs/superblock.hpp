// SPDX-License-Identifier: Apache-2.0
/// @file
/// read_superblock(): reads and checks the superblock of an EROFS image.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/format.hpp>

namespace erofs_oci::erofs {

/// Reads the superblock of an image and checks it.
/// @error{Errc::mismatch, not an EROFS image}
/// @error{Errc::corrupt, its checksum is wrong\, or a block size that EROFS does not have}
[[nodiscard]] Result<Superblock> read_superblock(RandomAccessSource auto const& image) {
  std::array<std::byte, Superblock::on_disk_size> raw{};
  if (image.size() < superblock_offset + raw.size()) {
    return fail(Errc::mismatch,
                std::to_string(image.size()) + " bytes are too few for an EROFS image");
  }
  EROFS_OCI_TRY(read_exact(image, superblock_offset, raw));
  auto const superblock = Superblock::decode(raw);
  if (superblock.magic != magic) {
    return fail(Errc::mismatch, "offset 1024: no EROFS superblock");
  }
  if (superblock.block_bits < 9 || superblock.block_bits > 16) {
    return fail(Errc::corrupt,
                "offset 1036: block size 2^" + std::to_string(superblock.block_bits));
  }
  if ((superblock.feature_compat & compat::checksum) == 0) return superblock;

  Bytes covered(static_cast<std::size_t>(superblock.checksum_length()));
  EROFS_OCI_TRY(read_exact(image, superblock_offset, covered), "superblock checksum");
  std::ranges::fill(std::span(covered).subspan(4, 4), std::byte{0});
  if (crc32c(covered) != superblock.checksum) {
    return fail(Errc::corrupt, "offset 1028: wrong checksum of the EROFS superblock");
  }
  return superblock;
}

}  // namespace erofs_oci::erofs
