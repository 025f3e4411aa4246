// SPDX-License-Identifier: Apache-2.0
/// @file
/// WriteOptions: the choices that the image format leaves to its writer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include <erofs_oci/erofs/format.hpp>

namespace erofs_oci::erofs {

/// How files name their data.
enum class Addressing : std::uint8_t {
  /// A device table, device ids, addresses counted on the device: mounts with `device=` and flat.
  device_table,
  /// No table, addresses in the flat space: only for image and data as one file, but then for any
  /// reader of plain EROFS.
  absolute,
};

/// How whiteouts and opaque directories are written. A file that only looks like one to overlayfs,
/// by its own device number or xattrs, is written as it is, with an xattr that the kernel hides and
/// that marks it as such.
enum class Marks : std::uint8_t {
  drop,     ///< left out: for a tree without lower layers
  trusted,  ///< as overlayfs reads them: device 0:0, `trusted.overlay.opaque`, `.origin`
  user,     ///< the same with `user.overlay.`, for mounts with `userxattr`
};

/// Whether an image remembers which directories were only implied.
enum class Implied : std::uint8_t {
  forget,
  keep,  ///< as an xattr that neither the kernel nor other tools see; load_tree() reads it
};

/// How to write an image.
struct WriteOptions {
  Addressing addressing = Addressing::device_table;
  Marks marks = Marks::drop;
  Implied implied = Implied::forget;
  /// The image's length is a multiple of this many bytes: a multiple of 512. 4096 lets the data
  /// start on a page, for reflinks, dm-verity and fsoffset.
  std::uint64_t alignment = block_size;
  /// Default: a fingerprint of the image.
  std::optional<std::array<std::byte, 16>> uuid{};
  std::string volume_name{};  ///< at most 15 bytes
  /// Bound on the chunk tables of all files together, in entries of 8 bytes: a few bytes of a
  /// hostile archive can declare a sparse file of 2^54 chunks.
  std::uint64_t max_chunks = 1u << 26;
};

/// An xattr that an image cannot hold and that was left out.
struct DroppedXattr {
  std::string path;
  std::string name;

  friend bool operator==(DroppedXattr const&, DroppedXattr const&) = default;
};

}  // namespace erofs_oci::erofs
