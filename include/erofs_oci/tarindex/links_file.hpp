// SPDX-License-Identifier: Apache-2.0
/// @file
/// The links file: hard links of a layer to files of layers below it, which its image cannot hold.
///
/// Little endian: u64 number of links, then for each u64 offset of its header in the tar, u32
/// length of its path, u32 length of its target, the path, the target.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tarindex/layer.hpp>

namespace erofs_oci::tarindex {

/// The file's bytes; none at all if there are no links.
[[nodiscard]] Bytes encode_links(std::span<DanglingLink const> links);

/// The inverse of encode_links().
/// @error{Errc::corrupt, the lengths do not add up to the file's}
[[nodiscard]] Result<std::vector<DanglingLink>> decode_links(std::span<std::byte const> file);

}  // namespace erofs_oci::tarindex

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tarindex/detail/links_file_body.hpp>
#endif
