// SPDX-License-Identifier: Apache-2.0
/// @file
/// open_image: the recommended stack over one layer, checked for belonging together.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <erofs_oci/combinator/proof.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/image/held_memory.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/read_options.hpp>
#include <erofs_oci/image/start_fetcher.hpp>

namespace erofs_oci {

/// The sources that one layer is put together from.
struct LayerSources {
  AnySource blob;                       ///< as it is stored
  std::optional<AnySource> tarindex{};  ///< EROFS image of the metadata
  std::optional<AnySource> zinfo{};     ///< gzip checkpoint index of the blob
  std::string media_type{};             ///< of the blob; empty if nothing names one
  std::optional<Digest> digest{};       ///< of the blob; empty if nothing names one
  /// What reading the blob gave before: it decodes in place of the zinfo, and checks each span.
  std::optional<StoredLayer> known{};
};

/// The bytes of a device that Linux mounts as EROFS.
struct DeviceImage {
  AnySource source;
  /// Where the zeros begin that fill up the last block, in bytes; the size if there are none.
  std::uint64_t zeros_from = 0;
  /// What is held in memory.
  HeldMemory held{};
  /// Of the layer's bytes, which are handed on before they can be checked; null: each is checked
  /// before, or none ever.
  std::shared_ptr<Proof> proof{};
  /// Remote layers with an index, of which parts can be fetched ahead. What they fetch lies in the
  /// memory of `source`; they keep it alive.
  std::vector<StartLayer> starts{};
};

/// Puts the bytes of a mountable device together: `[tarindex]` if there is one, then the blob,
/// decompressed if there is a zinfo. Parts that do not belong together are refused, as far as a few
/// reads can tell: the tarindex places its data right behind itself, the tar begins with a header,
/// it ends where the tarindex says, and the zinfo fits the blob.
///
/// Every byte is checked by `layer.known`, if that is there. Else, if the blob's digest is, all
/// bytes together are, as `options.verify` says; see Proved. What comes of a tarindex is not
/// checked.
///
/// @error{Errc::mismatch, the parts do not belong together\, or one is not what it should be}
/// @error{Errc::corrupt, a part breaks its format}
/// @error{Errc::unsupported, a blob that needs another form: compressed without zinfo\, zstd}
[[nodiscard]] Result<DeviceImage> open_image(LayerSources layer,
                                             ImageReadOptions const& options = {});

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/open_body.hpp>
#endif
