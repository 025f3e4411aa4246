// SPDX-License-Identifier: Apache-2.0
/// @file
/// Serving an image by FUSE.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/fuse/choose_mount.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/fuse/server.hpp>
#include <erofs_oci/fuse/session.hpp>
#include <erofs_oci/image/open.hpp>

#include "process.hpp"

namespace mount_oci {

/// What is mounted where, and how.
struct FuseServing {
  erofs_oci::MountWay way{};    ///< fuse_file or fuse_tree
  std::string target;           ///< absolute path of the directory
  unsigned long flags = 0;      ///< mount(2) flags
  std::string data;             ///< what the kernel's EROFS gets to read; for fuse_file only
  std::uint64_t readahead = 0;  ///< bytes that the kernel reads ahead; 0: its own number
  std::size_t threads = 0;      ///< reads at once; 0: as many as suit the machine
  erofs_oci::FuseStop on_stop = erofs_oci::FuseStop::unmount;
  /// Told of each request that failed, from any thread; or empty.
  std::function<void(std::string const& text)> on_failure{};
  erofs_oci::OnFuseTick on_tick{};  ///< see erofs_oci::FuseSession::run()
};

/// Mounts the image and serves it until it is unmounted or `stop` is asked for.
/// @param mounted  by an earlier server, whose place is taken; empty: it is mounted now
/// @param ready    called once, when files can be read
/// @error{Errc::invalid_argument, words for the kernel's EROFS, which does not mount it}
/// @error{as erofs_oci::FuseTree and erofs_oci::FuseImage say}
[[nodiscard]] Result<erofs_oci::FuseEnd> serve_by_fuse(
    FuseServing const& what, erofs_oci::DeviceImage image,
    std::optional<erofs_oci::FuseConnection> mounted, std::stop_token stop,
    erofs_oci::FunctionRef<void(erofs_oci::FuseSession&)> ready, Log const& log);

}  // namespace mount_oci
