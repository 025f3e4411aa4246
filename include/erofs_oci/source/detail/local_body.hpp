// SPDX-License-Identifier: Apache-2.0
/// @file
/// What source/local.hpp only declares.
#pragma once

#include <cerrno>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/source/local.hpp>

namespace erofs_oci {

EROFS_OCI_BODY Result<Local> Local::open(std::string path) {
  // O_NONBLOCK: a FIFO must be refused below, not waited for. It does nothing to a file.
  EROFS_OCI_TRY_ASSIGN(auto fd, open_read(path, O_NONBLOCK));
  return of_fd(std::move(fd), std::move(path));
}

EROFS_OCI_BODY Result<Local> Local::of_fd(UniqueFd fd, std::string path) {
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, path);
  auto const is_file = S_ISREG(status.st_mode);
  if (!is_file && !S_ISBLK(status.st_mode)) {
    return fail(Errc::unsupported, path + ": neither a regular file nor a block device");
  }
  auto const end = is_file ? status.st_size : ::lseek(fd.get(), 0, SEEK_END);
  if (end < 0) return fail_errno(errno, path);
  return Local(std::move(fd), std::move(path), static_cast<std::uint64_t>(end));
}

EROFS_OCI_BODY Result<std::size_t> Local::read_at(std::uint64_t offset,
                                                  std::span<std::byte> out) const {
  auto const wanted = readable(size_, offset, out.size());
  EROFS_OCI_TRY_ASSIGN(auto n, pread_full(fd_.get(), offset, out.first(wanted)), path_);
  if (n < wanted) {
    return fail(Errc::truncated, path_ + ": the file ends at offset " + std::to_string(offset + n) +
                                     ", it had " + std::to_string(size_) + " bytes when opened");
  }
  return wanted;
}

}  // namespace erofs_oci
