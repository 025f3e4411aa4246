// SPDX-License-Identifier: Apache-2.0
/// @file
/// Makes the files of a plan in a directory.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>

#include "extract_plan.hpp"
#include "target_directory.hpp"

namespace mount_oci {

/// What a summary counts.
struct Extracted {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
};

/// The attributes that a file gets.
using ChooseAttributes = std::function<Result<Attributes>(erofs_oci::erofs::Inode const& inode)>;

/// How files are made.
struct ExtractOptions {
  ChooseAttributes attributes;  ///< of each file
  bool finishes_root = true;    ///< whether the target itself gets attributes, too
  std::stop_token stop{};       ///< ends it early
};

/// Makes the files of `plan` below `target`. The contents are read in the order in which that costs
/// least; a file that cannot be finished is removed.
/// @error{Errc::stopping, it was asked to end}
/// @error{any, a part of the image cannot be read\, or a file cannot be made; the text names it}
[[nodiscard]] Result<Extracted> extract(ImageReader const& reader, ExtractPlan const& plan,
                                        TargetDirectory& target, ExtractOptions const& options);

}  // namespace mount_oci
