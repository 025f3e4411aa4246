// SPDX-License-Identifier: Apache-2.0
/// @file
/// Opens what a worker serves, from options or from a record.
#pragma once

#include <memory>
#include <string>

#include <erofs_oci/image/open.hpp>
#include <erofs_oci/recovery/record.hpp>

#include "layer_proof.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// Zeros behind the image, in bytes, on devices that are new: the last layer's tar ends the image,
/// and in its last bytes it could have a header of RAID (md 0.90 and 1.0, DDF, IMSM), which udev
/// and mdadm look for at a disk's end. A record's `device_size` counts them.
inline constexpr std::uint64_t quiet_end = 128 * 1024;

/// An image, and the record by which a next worker serves the same bytes.
struct ServedImage {
  erofs_oci::DeviceImage device;
  erofs_oci::Record record;                  ///< without `attach`, `mount_point` and `daemon`
  std::shared_ptr<ImageToProve> to_prove{};  ///< as OpenedImage::to_prove
  /// What an earlier worker has found to be wrong, if `device.proof` is still to be told of it,
  /// when the image is served: who serves files reads metadata before. Empty: nothing is.
  std::string mismatch{};
};

/// A name by which an image of a record is found by its digest; empty: it has none.
[[nodiscard]] std::string name_by_digest(erofs_oci::RecordImage const& image);

/// Options by which the whole image of a record is found by its digest, or the one layer that was
/// mounted.
/// @error{Errc::invalid_argument, a file was mounted\, or a layer without an image}
/// @error{as options_of(), as there}
[[nodiscard]] Result<ImageOptions> options_by_digest(erofs_oci::Record const& record,
                                                     ImageOptions const& given);

/// Opens the image that the options name, as open_source() does. With `in_place_of`, opens only an
/// EROFS image, or a layer with the given tarindex, that is the one mounted from that device.
/// @error{Errc::mismatch, another image is mounted}
/// @error{Errc::unsupported, in place of another\, and no EROFS image}
/// @error{as open_source() says}
[[nodiscard]] Result<ServedImage> serve_first(ImageOptions const& options, Log const& log,
                                              ExitOnSignal const* guard);

/// Opens the image of a record. Needs neither tag nor manifest.
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
