// SPDX-License-Identifier: Apache-2.0
/// @file
/// What an image can hold of a Tree: the rules that the Writer enforces, one node at a time.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/tree.hpp>

namespace erofs_oci::erofs {

/// Whether a directory entry can have this name: 1 to 255 bytes, not "." or "..", no NUL, no `/`.
[[nodiscard]] constexpr bool is_valid_name(std::string_view name) noexcept {
  return !name.empty() && name.size() <= max_name_length && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

/// Whether a symbolic link can have this target: 1 to 4095 bytes, no NUL.
[[nodiscard]] constexpr bool is_valid_target(std::string_view target) noexcept {
  return !target.empty() && target.size() <= max_symlink_length &&
         target.find('\0') == std::string_view::npos;
}

namespace detail {

/// A multiple of 512, rounded up; no overflow below 2^64 - 512.
[[nodiscard]] constexpr std::uint64_t round_to_block(std::uint64_t bytes) noexcept {
  return (bytes + block_size - 1) / block_size * block_size;
}

[[nodiscard]] Result<void> check_xattrs(std::vector<Xattr> const& xattrs);

}  // namespace detail

/// Checks one node, without its children; the error does not name it.
/// @param devices  what the extents of files name: 1 is the first
/// @error{Errc::invalid_argument, a link target\, xattr\, extent\, device number\, mode or time
/// that no image can hold\, or content that does not fit the kind}
/// @error{Errc::unsupported, data that do not start on a block of 512 bytes\, or end inside one
/// before the file ends}
[[nodiscard]] Result<void> check_node(Node const& node, std::span<Device const> devices);

}  // namespace erofs_oci::erofs

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/erofs/detail/tree_rules_body.hpp>
#endif
