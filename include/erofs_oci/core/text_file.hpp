// SPDX-License-Identifier: Apache-2.0
/// @file
/// Small files of procfs and sysfs, whole.
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

/// All of a file whose size nobody knows before it is read.
/// @error{std::errc::file_too_large, it has more than `limit` bytes}
/// @error{an errno, as open(2) and read(2)}
[[nodiscard]] inline Result<std::string> read_text_file(std::string const& path,
                                                        std::size_t limit = 4 * 1024 * 1024) {
  auto const fd = open_read(path);
  if (!fd) return fail(fd.error());
  std::string text;
  for (Bytes piece(16 * 1024);;) {
    auto const n = read_full(fd->get(), piece);
    if (!n) return fail(n.error(), path);
    text += as_text(std::span(piece).first(*n));
    if (text.size() > limit) return fail(make_error_code(std::errc::file_too_large), path);
    if (*n < piece.size()) return text;
  }
}

/// The same without the newlines at its end: an attribute of sysfs, a line of procfs.
/// @error{as read_text_file(), as there}
[[nodiscard]] inline Result<std::string> read_text_value(std::string const& path) {
  auto text = read_text_file(path);
  while (text && text->ends_with('\n')) text->pop_back();
  return text;
}

/// Writes to a file that exists, as one value of sysfs.
/// @error{an errno, as open(2) and write(2)}
[[nodiscard]] inline Result<void> write_text_file(std::string const& path, std::string_view text) {
  UniqueFd const fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, path);
  auto const ok = write_full(fd.get(), as_bytes(text));
  if (!ok) return fail(ok.error(), path);
  return {};
}

}  // namespace erofs_oci
