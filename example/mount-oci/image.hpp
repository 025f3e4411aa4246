// SPDX-License-Identifier: Apache-2.0
/// @file
/// From options to the bytes of a device.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/open.hpp>

#include "find_image.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// Opens the image that the options name, in a registry, an OCI layout or a file, and checks its
/// parts against each other. Makes the first requests, so that a registry that does not answer is
/// known now; all later ones are bounded by `options.timeout`. Layers that have no index yet are
/// read once, which may take long.
/// @param guard  what a signal does meanwhile; null: what it does by default
/// @error{Errc::invalid_argument, a reference\, path or choice of layer that means nothing}
/// @error{Errc::stopping, a signal came}
/// @error{as the sources say}
[[nodiscard]] Result<erofs_oci::DeviceImage> open_source(ImageOptions const& options,
                                                         Log const& log,
                                                         ExitOnSignal const* guard = nullptr);

/// An image that was found and opened.
struct OpenedImage {
  erofs_oci::DeviceImage device;
  std::uint64_t metadata_size = 0;  ///< bytes at the front that hold no file's data; 0: not known
};

/// The index of one layer that a user gives.
struct OwnIndex {
  std::optional<erofs_oci::AnySource> tarindex;
  std::optional<erofs_oci::AnySource> zinfo;

  [[nodiscard]] bool empty() const noexcept { return !tarindex && !zinfo; }
};

/// Opens the index that the options name.
/// @error{as Local::open(), as it says}
[[nodiscard]] Result<OwnIndex> open_own_index(ImageOptions const& options);

/// What open_source() does once the image is found.
/// @param index  of the only layer; empty: it is looked up or made
[[nodiscard]] Result<OpenedImage> open_found(FoundImage& found, OwnIndex index,
                                             ImageOptions const& options, Log const& log,
                                             ExitOnSignal const* guard);

/// The same for a process that has nothing to clean up yet: a signal ends it meanwhile.
/// @param peer  see ExitOnSignal::make()
[[nodiscard]] inline Result<erofs_oci::DeviceImage> open_or_exit(ImageOptions const& options,
                                                                 Signals const& signals,
                                                                 Log const& log, int peer = -1) {
  auto const guard = ExitOnSignal::make(signals, peer);
  if (!guard) return erofs_oci::fail(guard.error());
  return open_source(options, log, &*guard);
}

/// Whether an index is given for one layer, instead of one being looked up or made.
[[nodiscard]] inline bool has_own_index(ImageOptions const& options) noexcept {
  return !options.tarindex.empty() || !options.zinfo.empty();
}

/// Whether the image is one EROFS image, which is read as it is.
[[nodiscard]] Result<bool> is_native(FoundImage const& found);

/// The image's files.
using ImageReader = erofs_oci::erofs::Reader<erofs_oci::AnySource>;

/// Opens an image and its file system.
[[nodiscard]] Result<ImageReader> open_reader(ImageOptions const& options, Log const& log,
                                              ExitOnSignal const* guard);

/// How the options want an image to be read.
[[nodiscard]] inline erofs_oci::ImageReadOptions read_options(ImageOptions const& options) {
  return {.cache_bytes = options.cache,
          .deadline = options.timeout,
          .connections = options.connections};
}

/// How many reads are worth having in flight.
[[nodiscard]] inline std::size_t worker_count(ImageOptions const& options) noexcept {
  return 8 + 2 * std::size_t{options.connections};
}

}  // namespace mount_oci
