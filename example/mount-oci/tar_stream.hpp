// SPDX-License-Identifier: Apache-2.0
/// @file
/// A plan of files as a tar.
#pragma once

#include <functional>
#include <string>

#include "extract_plan.hpp"
#include "output.hpp"
#include "target_directory.hpp"

namespace mount_oci {

/// The attributes that an inode has.
[[nodiscard]] Result<Attributes> attributes_of(ImageReader const& reader,
                                               erofs_oci::erofs::Inode const& inode);

/// Writes an archive of the planned files. Names are relative, that of the root is "./".
/// @param warn  called for files that no tar can hold
/// @error{as `output` and the image say}
[[nodiscard]] Result<void> write_tar(ImageReader const& reader, ExtractPlan const& plan,
                                     Output& output,
                                     std::function<void(std::string const& text)> const& warn);

}  // namespace mount_oci
