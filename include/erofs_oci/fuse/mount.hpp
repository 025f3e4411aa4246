// SPDX-License-Identifier: Apache-2.0
/// @file
/// Mounting /dev/fuse on a directory, with and without privileges. Needs no libfuse.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// An open /dev/fuse that is mounted somewhere.
///
/// It can outlive the process that serves it: any process with a descriptor keeps the mount, and
/// requests wait. A new server needs `opening` too, since the kernel sends it only once, and
/// `inflight`, since the kernel sends each request only once.
struct FuseConnection {
  UniqueFd device;
  Bytes opening{};      ///< the kernel's first request, FUSE_INIT; empty until it has come
  UniqueFd inflight{};  ///< of FuseInflight; empty until a server has begun
};

/// Who may use a mounted file system.
enum class FuseAccess : std::uint8_t {
  automatic,  ///< everyone if this process may mount, else owner
  owner,      ///< the user that mounted it, who may read all of it
  everyone,   ///< every user, as modes, owners and ACLs say. Without privileges this needs
              ///< user_allow_other in /etc/fuse.conf
};

/// How /dev/fuse is mounted.
struct FuseMountOptions {
  std::string source = "erofs_oci";   ///< the first word in /proc/mounts
  std::string subtype = "erofs_oci";  ///< the type there is fuse.SUBTYPE
  /// MS_ flags. fusermount3 adds nosuid and nodev whatever they say.
  unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV;
  FuseAccess access = FuseAccess::automatic;
  std::string helper =
      "fusermount3";  ///< the program that mounts without privileges; looked up in PATH
};

namespace detail {

[[nodiscard]] bool for_everyone(FuseAccess access) noexcept;

/// MS_ flags as fusermount3's words.
[[nodiscard]] std::string fuse_helper_options(FuseMountOptions const& options);

[[nodiscard]] Result<FuseConnection> mount_fuse_by_helper(std::string const& directory,
                                                          FuseMountOptions const& options);

}  // namespace detail

/// Mounts a new /dev/fuse at a directory; accesses block until it is served.
///
/// With mount(2) if this process may, else with fusermount3, which needs a directory that the user
/// may write to.
/// @error{std::errc::not_a_directory, `directory` is none}
/// @error{Errc::unsupported, there is no fusermount3}
/// @error{std::errc::io_error, fusermount3 refuses; the text is its own}
/// @error{an errno, as open(2) of /dev/fuse and mount(2)}
[[nodiscard]] Result<FuseConnection> mount_fuse(std::string const& directory,
                                                FuseMountOptions const& options = {});

/// How far the kernel reads ahead on a mounted FUSE file system, in KiB; its default is 128. Asks
/// for attributes of `directory`, so another thread must serve it.
/// @error{an errno, as stat(2)\, open(2) and write(2): only root may}
[[nodiscard]] Result<void> set_fuse_read_ahead(std::string const& directory, std::uint32_t kib);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/fuse/detail/mount_body.hpp>
#endif
