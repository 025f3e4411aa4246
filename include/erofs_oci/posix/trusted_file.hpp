// SPDX-License-Identifier: Apache-2.0
/// @file
/// read_trusted_file(): a small file that says what to do, if no other user could have written it.
#pragma once

#include <cerrno>
#include <cstddef>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/text_file.hpp>

namespace erofs_oci {

/// A text and the mode of the file that it came from.
struct TrustedText {
  std::string text;
  mode_t mode = 0;
};

/// Reads a regular file; never blocks on one that is none. For root it must belong to root and be
/// writable for root alone.
/// @param user   whose trust counts. Default: this process's effective user
/// @param limit  bytes
/// @error{std::errc::operation_not_permitted, another user may have written it}
/// @error{Errc::invalid_argument, it is no regular file}
/// @error{as read_text(), as there}
[[nodiscard]] inline Result<TrustedText> read_trusted_file(std::string const& path,
                                                           std::size_t limit = 1024 * 1024,
                                                           uid_t user = ::geteuid()) {
  EROFS_OCI_TRY_ASSIGN(auto const fd, open_read(path, O_NONBLOCK | O_NOCTTY));
  struct stat about{};
  if (::fstat(fd.get(), &about) != 0) return fail_errno(errno, path);
  if (!S_ISREG(about.st_mode)) return fail(Errc::invalid_argument, path + ": not a regular file");
  auto const refuse = [&](std::string const& why) {
    return fail(std::make_error_code(std::errc::operation_not_permitted),
                path + ": not used by root: " + why);
  };
  if (user == 0 && about.st_uid != 0) {
    return refuse("it belongs to user " + std::to_string(about.st_uid) + "; chown it to root");
  }
  if (user == 0 && (about.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return refuse("other users may write to it; chmod go-w");
  }
  EROFS_OCI_TRY_ASSIGN(auto text, read_text(fd, path, limit));
  return TrustedText{std::move(text), about.st_mode};
}

}  // namespace erofs_oci
