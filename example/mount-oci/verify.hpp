// SPDX-License-Identifier: Apache-2.0
/// @file
/// Comparing an index with the layer that it is of.
#pragma once

#include <optional>
#include <stop_token>
#include <string>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/erofs/tree.hpp>

#include "process.hpp"

namespace mount_oci {

/// An index as readers use it.
struct IndexToVerify {
  erofs_oci::AnySource const& tarindex;
  erofs_oci::AnySource const& contents;  ///< the decoded tar, by way of the checkpoints
};

/// Reads a layer once more, front to back, decodes it by other means than its checkpoints, and
/// compares: each byte with what the index gives for its place, and each file (type, attributes,
/// names, and where in the tar its content is) with the tar's members.
/// @return what differs first, or nothing
/// @error{as the blob and the index say}
[[nodiscard]] Result<std::optional<std::string>> find_difference(erofs_oci::AnySource const& blob,
                                                                 IndexToVerify const& index,
                                                                 std::stop_token const& stop);

}  // namespace mount_oci
