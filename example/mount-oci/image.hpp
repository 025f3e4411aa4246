// SPDX-License-Identifier: Apache-2.0
/// @file
/// Opens the bytes of a device from options.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/digest/verity_tree.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/open.hpp>

#include "find_image.hpp"
#include "options.hpp"
#include "process.hpp"
#include "start_keeper.hpp"

namespace mount_oci {

/// Opens the image that the options name, in a registry, an OCI layout or a file, and checks that
/// its parts belong together. Blocks: makes the first requests, and reads each layer without an
/// index once, which may take long. `options.timeout` bounds all later reads.
/// @param guard  what a signal does during this call; null: its default action
/// @error{Errc::invalid_argument, a reference\, path or choice of layer that means nothing}
/// @error{Errc::stopping, a signal came}
/// @error{as the sources say}
[[nodiscard]] Result<erofs_oci::DeviceImage> open_source(ImageOptions const& options,
                                                         Log const& log,
                                                         ExitOnSignal const* guard = nullptr);

struct ImageToProve;

/// A Merkle tree that was found in a store.
struct FoundTree {
  erofs_oci::AnySource file;
  erofs_oci::VerityTree tree;
};

/// An image that was found and opened.
struct OpenedImage {
  erofs_oci::DeviceImage device;
  std::uint64_t metadata_size = 0;  ///< bytes at the front that hold no file's data; 0: not known
  bool as_it_is = false;            ///< metadata and all are the layer's own, not made here
  bool rewritten = false;  ///< the layer is an EROFS image, but the metadata were made here
  std::optional<FoundTree> tree{};  ///< of the device, if one is there and wanted
  std::string unproved{};  ///< why bytes are handed on before they are checked; empty: they are not
  /// Of an image that is read by indexes: those that nobody has compared with their layers. While
  /// there are any, `device.proof` stops all reads. Null: as it_is, or by an index of the user's.
  std::shared_ptr<ImageToProve> to_prove{};
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

/// What open_source() does, with what is known of the image.
[[nodiscard]] Result<OpenedImage> open_checked(ImageOptions const& options, Log const& log,
                                               ExitOnSignal const* guard);

/// Before an image is served for the first time: warns of bytes that nothing checks, and looks for
/// damage in metadata that a kernel will parse as they are.
/// @error{Errc::corrupt, such metadata are damaged}
[[nodiscard]] Result<void> check_first(OpenedImage const& opened, ImageOptions const& options,
                                       Log const& log);

/// What open_source() does once the image is found.
/// @param index  of the only layer; empty: it is looked up or made
[[nodiscard]] Result<OpenedImage> open_found(FoundImage& found, OwnIndex index,
                                             ImageOptions const& options, Log const& log,
                                             ExitOnSignal const* guard);

/// open_source() for a process that has nothing to clean up: a signal ends it.
[[nodiscard]] inline Result<OpenedImage> open_or_exit(ImageOptions const& options,
                                                      Signals const& signals, Log const& log) {
  EROFS_OCI_TRY_ASSIGN(auto const guard, ExitOnSignal::make(signals));
  auto requests = options.access.requests;
  std::stop_callback const end(guard.stop_token(), [&] { requests.request_stop(); });
  return open_checked(options, log, &guard);
}

/// Whether an index is given for one layer, instead of one being looked up or made.
[[nodiscard]] inline bool has_own_index(ImageOptions const& options) noexcept {
  return !options.tarindex.empty() || !options.zinfo.empty();
}

/// Whether the image is one EROFS image.
[[nodiscard]] Result<bool> is_native(FoundImage const& found);

/// The image's files.
using ImageReader = erofs_oci::erofs::Reader<erofs_oci::AnySource>;

/// The image's files, and who has made their metadata.
struct OpenedFiles {
  ImageReader reader;
  bool made_here = false;  ///< from indexes of layers; else the layer is an EROFS image as it is
};

/// Opens an image and its file system. An EROFS image is read as it is.
[[nodiscard]] Result<OpenedFiles> open_files(ImageOptions const& options, Log const& log,
                                             ExitOnSignal const* guard);

/// The files alone.
[[nodiscard]] inline Result<ImageReader> open_reader(ImageOptions const& options, Log const& log,
                                                     ExitOnSignal const* guard) {
  EROFS_OCI_TRY_ASSIGN(auto files, open_files(options, log, guard));
  return std::move(files.reader);
}

/// How the options want an image to be read.
[[nodiscard]] inline erofs_oci::ImageReadOptions read_options(ImageOptions const& options) {
  decltype(erofs_oci::ImageReadOptions::on_need) on_need;
  decltype(erofs_oci::ImageReadOptions::on_read) on_read;
  if (options.starts) {
    on_need = [starts = options.starts](erofs_oci::Digest const& layer, std::uint64_t begin,
                                        std::uint64_t end) { starts->note(layer, begin, end); };
    on_read = [starts = options.starts](erofs_oci::Digest const& layer, std::uint64_t begin,
                                        std::uint64_t end) {
      starts->note_read(layer, begin, end);
    };
  }
  return {.cache_bytes = options.cache_bytes(),
          .deadline = options.timeout,
          .max_span = options.budget().span(),
          .connections = options.connections,
          .verify = options.verify,
          .try_data = !options.opened_before,
          .on_need = std::move(on_need),
          .on_read = std::move(on_read)};
}

/// The number of threads that read the image.
[[nodiscard]] inline std::size_t worker_count(ImageOptions const& options) noexcept {
  return 8 + 2 * std::size_t{options.connections};
}

}  // namespace mount_oci
