// SPDX-License-Identifier: Apache-2.0
/// @file
/// Bytes for another process, in a file that has no name.
#pragma once

#include <cstddef>
#include <span>

#include <erofs_oci/core/bytes.hpp>

#include "process.hpp"

namespace mount_oci {

/// A descriptor of a file with these bytes.
/// @error{an errno, as memfd_create(2) and write(2)}
[[nodiscard]] Result<UniqueFd> to_memory_file(std::span<std::byte const> bytes);

/// All of such a file.
/// @error{Errc::protocol, it is longer than 64 MiB}
/// @error{an errno, as fstat(2) and pread(2)}
[[nodiscard]] Result<erofs_oci::Bytes> from_memory_file(UniqueFd const& fd);

}  // namespace mount_oci
