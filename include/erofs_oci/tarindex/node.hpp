// SPDX-License-Identifier: Apache-2.0
/// @file
/// node_of: makes a node of a tree from a tar member, and reports what EROFS cannot hold of it.
#pragma once

#include <cstdint>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/tar/entry.hpp>

namespace erofs_oci::tarindex {

/// The node that a member, other than a hard link, describes.
/// @param device   where its data are: the number for its extents
/// @param reports  takes attributes that are left out, because no image can hold them
/// @error{Errc::unsupported, a device number that no kernel has}
[[nodiscard]] Result<erofs::Node> node_of(tar::Entry&& entry, std::uint32_t device,
                                          tar::Reports& reports);

}  // namespace erofs_oci::tarindex

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tarindex/detail/node_body.hpp>
#endif
