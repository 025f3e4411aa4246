// SPDX-License-Identifier: Apache-2.0
/// @file
/// The process that keeps a mount alive while the workers that read for it come and go.
#pragma once

#include <optional>
#include <string>

#include "device_server.hpp"
#include "link.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// A mount that was there before.
struct EarlierMount {
  std::string journal;   ///< directory, absolute
  std::string name;      ///< of its record there
  bool replace = false;  ///< whoever serves it now is alive, and hands it over
};

/// Starts a worker, has the image attached, says so over the link, and keeps the mount served until
/// it is unmounted: a worker that dies or hangs is replaced. Ends the mount when a signal comes,
/// the mounting fails, or the mounting process dies before it is done. Leaves neither device nor
/// record behind, but if all hope is lost: then the record stays, for `mount-oci reattach`.
/// @param options  for an earlier mount: with credentials, if they were given again
/// @param link     to the process that mounts; it gets `device` and, once that is mounted,
/// `settled`;
///                 for FUSE and for an earlier mount only the latter
/// @error{as open_source() and the kernel say}
[[nodiscard]] Result<void> supervise(Options options, Link link, Life life,
                                     std::optional<EarlierMount> earlier, Log& log);

}  // namespace mount_oci
