// SPDX-License-Identifier: Apache-2.0
/// @file
/// Where `cp` copies to.
#pragma once

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// Looks at the local end of a copy, before the process is confined: sets the directory that is
/// written to, the name of the copy in it, and the modes that new files may have.
/// @error{std::errc::no_such_file_or_directory, the directory is not there}
/// @error{std::errc::not_a_directory, what should be one is none}
[[nodiscard]] Result<void> prepare_copy(ReadOptions& read);

}  // namespace mount_oci
