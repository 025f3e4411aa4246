// SPDX-License-Identifier: Apache-2.0
/// @file
/// ExtraCheckpoints as a file: doc/formats/checkpoints.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>

namespace erofs_oci {

/// No such file is longer, in bytes.
inline constexpr std::uint64_t max_checkpoints_file_size =
    16 + 56 * ExtraCheckpoints::most + ExtraCheckpoints::most_window_bytes + 32;

/// Every byte of the file.
[[nodiscard]] Bytes encode_checkpoints(ExtraCheckpoints const& extra);

/// The inverse of encode_checkpoints().
/// @error{Errc::unsupported, another version}
/// @error{Errc::corrupt, no such file\, or one that is cut short or changed}
[[nodiscard]] Result<ExtraCheckpoints> decode_checkpoints(std::span<std::byte const> file);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/checkpoints_file_body.hpp>
#endif
