// SPDX-License-Identifier: Apache-2.0
/// @file
/// Bytes for another process, in a file that has no name.
#pragma once

#include <cerrno>
#include <cstddef>
#include <span>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

namespace detail {

/// Nobody can change such a file any more.
inline constexpr int memory_file_seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;

}  // namespace detail

/// A descriptor of a file with these bytes, which nobody can change; close-on-exec.
/// @error{an errno, as memfd_create(2)\, write(2) and fcntl(2)}
[[nodiscard]] inline Result<UniqueFd> to_memory_file(std::span<std::byte const> bytes) {
  UniqueFd fd(::memfd_create("erofs_oci", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno(errno, "memfd");
  EROFS_OCI_TRY(write_full(fd.get(), bytes), "memfd");
  if (::fcntl(fd.get(), F_ADD_SEALS, detail::memory_file_seals) != 0) {
    return fail_errno(errno, "memfd");
  }
  return fd;
}

/// All bytes of such a file. Does not block: a file that has seals is in memory.
/// @error{Errc::protocol, it could still change\, is no such file\, or longer than 64 MiB}
/// @error{an errno, as fstat(2) and pread(2)}
[[nodiscard]] inline Result<Bytes> from_memory_file(UniqueFd const& fd) {
  constexpr off_t most = 64 << 20;
  struct stat status{};
  auto const seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & detail::memory_file_seals) != detail::memory_file_seals) {
    return fail(Errc::protocol, "memfd: not sealed memory");
  }
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "memfd");
  if (status.st_size > most) return fail(Errc::protocol, "memfd");
  Bytes bytes(static_cast<std::size_t>(status.st_size));
  EROFS_OCI_TRY_ASSIGN(auto const n, pread_full(fd.get(), 0, bytes), "memfd");
  if (n != bytes.size()) return fail(Errc::protocol, "memfd");
  return bytes;
}

}  // namespace erofs_oci
