// SPDX-License-Identifier: Apache-2.0
/// @file
/// Paths: resolved, and checked without a look at the disk.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>

namespace erofs_oci {

inline constexpr std::size_t longest_path = 4095;  ///< bytes, as PATH_MAX without its NUL

/// The absolute path of what is there, without symbolic links.
/// @error{an errno, as realpath(3)}
[[nodiscard]] inline Result<std::string> real_path(std::string const& path) {
  std::unique_ptr<char, decltype(&std::free)> const real(::realpath(path.c_str(), nullptr),
                                                         &std::free);
  if (!real) return fail_errno(errno, path);
  return std::string(real.get());
}

/// The directory that a path names something in; ends with a slash unless it is ".".
[[nodiscard]] inline std::string folder_of(std::string const& path) {
  auto const slash = path.rfind('/');
  return slash == path.npos ? "." : path.substr(0, slash + 1);
}

/// Whether a path is absolute and free of ".", "..", empty parts and NUL, so that it means the same
/// from everywhere. At most `longest_path` bytes.
[[nodiscard]] inline bool is_absolute_path(std::string_view path) noexcept {
  if (path.empty() || path.size() > longest_path || path.front() != '/') return false;
  if (path.find('\0') != path.npos) return false;
  if (path == "/") return true;
  return are_parts_good(path.substr(1), '/', [](std::string_view part) {
    return !part.empty() && part != "." && part != "..";
  });
}

}  // namespace erofs_oci
