// SPDX-License-Identifier: Apache-2.0
/// @file
/// serve_by_fuse(): an EROFS image as a mount, by one of the ways that need no NBD.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/fuse/server.hpp>
#include <erofs_oci/fuse/session.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/host/verity_device.hpp>

namespace erofs_oci {

/// Mounts for a server that has not the privileges to do so itself.
struct FuseMounter {
  /// Mounts a new /dev/fuse.
  std::function<Result<FuseConnection>()> connect{};
  /// Completes the mount while the connection is served; see FuseImageMount::attach(). After an
  /// error nothing is mounted.
  /// @return a line of text about how the kernel mounts the file, or empty
  std::function<Result<std::string>(std::uint64_t metadata,
                                    std::optional<VerityTable> const& verity)>
      attach{};
};

/// What is mounted where, and how.
struct FuseServing {
  MountWay way{};           ///< fuse_file or fuse_tree
  std::string target{};     ///< absolute path of the directory
  unsigned long flags = 0;  ///< mount(2) flags
  std::string data{};       ///< options for the kernel's EROFS; for fuse_file only
  /// How the kernel checks what it reads; for fuse_file only. Empty: it does not.
  std::optional<VerityTable> verity{};
  std::uint64_t readahead = 0;  ///< bytes that the kernel reads ahead; 0: its own number
  std::size_t threads = 0;      ///< reads at once; 0: as many as suit the machine
  FuseAccess access = FuseAccess::automatic;
  FuseStop on_stop = FuseStop::unmount;
  std::optional<FuseMounter> mounter{};  ///< mounts; empty: serve_by_fuse() does
  /// Gets a line of text for each request that failed, from any thread; or empty.
  std::function<void(std::string const& text)> on_failure{};
  /// Gets a line of text about how the kernel mounts the file; or empty.
  std::function<void(std::string const& text)> on_attached{};
  /// Called once the source was opened, before a request is answered; or empty.
  std::function<void()> before_requests{};
  OnFuseTick on_tick{};            ///< see FuseSession::run()
  std::stop_token leave{};         ///< see FuseServeOptions
  std::function<void()> on_end{};  ///< see FuseServeOptions
};

/// Mounts an EROFS image and serves it until it is unmounted or `stop` is asked for.
/// @param mounted  by an earlier server, whose place is taken; empty: it is mounted now
/// @param ready    called once, when files can be read. Of a FuseMounter's mount the end is not
///                 serve_by_fuse()'s business
/// @error{Errc::invalid_argument, options for the kernel's EROFS with fuse_tree, which does not use
/// it}
/// @error{as FuseTree and FuseImage say}
[[nodiscard]] Result<FuseEnd> serve_by_fuse(FuseServing const& what, AnySource source,
                                            std::optional<FuseConnection> mounted,
                                            std::stop_token stop,
                                            FunctionRef<void(FuseSession&)> ready);

/// What mounts in place of serve_by_fuse(), in a process that has the privileges to do so. `what`
/// is that of the server.
[[nodiscard]] FuseMounter fuse_mounter(FuseServing const& what);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/mount/detail/fuse_serving_body.hpp>
#endif
