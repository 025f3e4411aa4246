// SPDX-License-Identifier: Apache-2.0
#include "memory_file.hpp"

#include <cerrno>

#include <sys/mman.h>
#include <sys/stat.h>

#include <erofs_oci/core/fd.hpp>

namespace mount_oci {

using erofs_oci::fail;
using erofs_oci::fail_errno;

Result<UniqueFd> to_memory_file(std::span<std::byte const> bytes) {
  UniqueFd fd(::memfd_create("mount-oci", MFD_CLOEXEC));
  if (!fd) return fail_errno(errno, "memfd");
  if (auto const ok = erofs_oci::write_full(fd.get(), bytes); !ok) return fail(ok.error(), "memfd");
  return fd;
}

Result<erofs_oci::Bytes> from_memory_file(UniqueFd const& fd) {
  constexpr off_t most = 64 << 20;
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "memfd");
  if (!S_ISREG(status.st_mode) || status.st_size > most) return fail(Errc::protocol, "memfd");
  erofs_oci::Bytes bytes(static_cast<std::size_t>(status.st_size));
  auto const n = erofs_oci::pread_full(fd.get(), 0, bytes);
  if (!n) return fail(n.error(), "memfd");
  if (*n != bytes.size()) return fail(Errc::protocol, "memfd");
  return bytes;
}

}  // namespace mount_oci
