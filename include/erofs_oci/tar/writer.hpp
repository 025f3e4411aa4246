// SPDX-License-Identifier: Apache-2.0
/// @file
/// encode_header: the blocks in front of a member's data. No I/O.
#pragma once

#include <cstddef>
#include <cstdint>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tar/entry.hpp>

namespace erofs_oci::tar {

/// Bytes of a member that are stored: what the holes leave.
[[nodiscard]] std::uint64_t stored_size(Entry const& entry) noexcept;

/// Zeros behind so many bytes of data, up to the next block.
[[nodiscard]] constexpr std::size_t padding(std::uint64_t stored) noexcept {
  return static_cast<std::size_t>((block_size - stored % block_size) % block_size);
}

/// Zeros that end an archive.
inline constexpr std::size_t end_size = 2 * block_size;

/// The blocks in front of a member's data: ustar, with a PAX header where that has no room, and the
/// map of a sparse file. The data follow: the extents' bytes one after another, padding().
///
/// Of `entry`, `tar_offset`, `header_offset` and `copies` do not count, and `sparse` is found out.
/// The same entry gives the same bytes.
/// @error{Errc::unsupported, an attribute's name that PAX cannot hold: the text names it}
[[nodiscard]] Result<Bytes> encode_header(Entry const& entry);

}  // namespace erofs_oci::tar

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tar/detail/writer_body.hpp>
#endif
