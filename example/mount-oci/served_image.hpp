// SPDX-License-Identifier: Apache-2.0
/// @file
/// From options, or from the record of an earlier daemon, to what a daemon serves.
#pragma once

#include <erofs_oci/image/open.hpp>
#include <erofs_oci/recovery/record_fields.hpp>

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// An image, and what the next daemon must know to serve the same bytes.
struct ServedImage {
  erofs_oci::DeviceImage device;
  erofs_oci::Record record;  ///< without `attach`, `mount_point` and `daemon`
};

/// Opens the image that the options name, as open_source() does. In place of another tool's daemon:
/// an EROFS image, or a layer with the tarindex that is given, and only if it is what is mounted.
/// @error{Errc::mismatch, another image is mounted}
/// @error{Errc::unsupported, in place of another\, and no EROFS image}
/// @error{as open_source() says}
[[nodiscard]] Result<ServedImage> serve_first(ImageOptions const& options, Log const& log,
                                              ExitOnSignal const* guard);

/// Opens what was served before. Needs neither tag nor manifest.
/// @param options  as options_of() makes them
/// @error{Errc::mismatch, a file is another one than it was\, or the bytes would be others}
/// @error{as the sources say}
[[nodiscard]] Result<ServedImage> serve_again(erofs_oci::Record const& record,
                                              ImageOptions const& options, Log const& log,
                                              ExitOnSignal const* guard);

/// How the recorded image is reached.
/// @param given  has credentials, if they were given by hand
/// @error{Errc::unauthorized, they were\, and `given` has none}
[[nodiscard]] Result<ImageOptions> options_of(erofs_oci::Record const& record,
                                              ImageOptions const& given);

}  // namespace mount_oci
