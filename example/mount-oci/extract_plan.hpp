// SPDX-License-Identifier: Apache-2.0
/// @file
/// What an extraction makes, in the orders in which it should.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <erofs_oci/erofs/inode.hpp>

#include "image.hpp"

namespace mount_oci {

/// A name to be made.
struct PlannedFile {
  std::string path;  ///< from the image's root: "/etc/passwd"
  erofs_oci::erofs::Inode inode;
  std::string link_to;  ///< the file's first name, if this is another one; else empty
};

/// All names, and the order in which reading content costs least.
struct ExtractPlan {
  std::vector<PlannedFile> files;     ///< in the order of the tree: parents before children
  std::vector<std::size_t> by_place;  ///< of `files`, those with content, as it lies on the device
};

/// Plans the extraction of the files that `paths` name, with all below them and the directories on
/// the way; of all files, if there are none.
/// @param paths  from the image's root; links on the way are not followed
/// @error{std::errc::no_such_file_or_directory, the text names the path}
/// @error{any, a part of the image cannot be read}
[[nodiscard]] Result<ExtractPlan> plan_extraction(ImageReader const& reader,
                                                  std::vector<std::string> const& paths);

/// Plans to make a file, or a directory with all below it, elsewhere.
/// @param as  its new path; `/`: what is in the directory is made in the target itself
/// @error{any, a part of the image cannot be read}
[[nodiscard]] Result<ExtractPlan> plan_copy(ImageReader const& reader,
                                            erofs_oci::erofs::Inode const& source, std::string as);

}  // namespace mount_oci
