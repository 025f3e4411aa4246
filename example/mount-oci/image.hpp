// SPDX-License-Identifier: Apache-2.0
/// @file
/// From options to the bytes of a device.
#pragma once

#include <erofs_oci/image/open.hpp>

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// Opens the image that the options name, in a registry, an OCI layout or a file, and checks its
/// parts against each other. Makes the first requests, so that a registry that does not answer is
/// known now; all later ones are bounded by `options.timeout`.
/// @error{Errc::invalid_argument, a reference\, path or choice of layer that means nothing}
/// @error{as the sources say}
[[nodiscard]] Result<erofs_oci::DeviceImage> open_source(ImageOptions const& options,
                                                         Log const& log);

/// The same for a process that has nothing to clean up yet: a signal ends it meanwhile.
[[nodiscard]] inline Result<erofs_oci::DeviceImage> open_or_exit(ImageOptions const& options,
                                                                 Signals const& signals,
                                                                 Log const& log) {
  auto const guard = ExitOnSignal::make(signals);
  if (!guard) return erofs_oci::fail(guard.error());
  return open_source(options, log);
}

/// How many reads are worth having in flight.
[[nodiscard]] inline std::size_t worker_count(ImageOptions const& options) noexcept {
  return 8 + 2 * std::size_t{options.connections};
}

}  // namespace mount_oci
