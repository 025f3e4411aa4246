// SPDX-License-Identifier: Apache-2.0
/// @file
/// Small files, read whole: of procfs and sysfs, and others.
#pragma once

#include <cerrno>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// Reads an open file from its position to its end; its size need not be known before.
/// @param name   for messages
/// @param limit  bytes
/// @error{std::errc::file_too_large, it has more than `limit` bytes}
/// @error{an errno, as read(2)}
[[nodiscard]] inline Result<std::string> read_text(UniqueFd const& fd, std::string const& name,
                                                   std::size_t limit) {
  std::string text;
  for (Bytes piece(16 * 1024);;) {
    EROFS_OCI_TRY_ASSIGN(auto const n, read_full(fd.get(), piece), name);
    text += as_text(std::span(piece).first(n));
    if (text.size() > limit) return fail(make_error_code(std::errc::file_too_large), name);
    if (n < piece.size()) return text;
  }
}

/// read_text() for a path.
/// @error{as read_text(), as there}
/// @error{an errno, as open(2)}
[[nodiscard]] inline Result<std::string> read_text_file(std::string const& path,
                                                        std::size_t limit = 4 * 1024 * 1024) {
  EROFS_OCI_TRY_ASSIGN(auto const fd, open_read(path));
  return read_text(fd, path, limit);
}

/// read_text_file() without the newlines at the end: an attribute of sysfs, a line of procfs.
/// @error{as read_text_file(), as there}
[[nodiscard]] inline Result<std::string> read_text_value(std::string const& path) {
  auto text = read_text_file(path);
  while (text && text->ends_with('\n')) text->pop_back();
  return text;
}

/// Writes to a file that exists, such as an attribute of sysfs.
/// @error{an errno, as open(2) and write(2)}
[[nodiscard]] inline Result<void> write_text_file(std::string const& path, std::string_view text) {
  UniqueFd const fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, path);
  EROFS_OCI_TRY(write_full(fd.get(), as_bytes(text)), path);
  return {};
}

}  // namespace erofs_oci
