// SPDX-License-Identifier: Apache-2.0
// A layer for tests of what is compared with layers: a tar, the tar in gzip, and its index.
#pragma once

#include <string>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/tar_maker.hpp>

#include "find_image.hpp"

namespace mount_oci {

/// A layer of six files, d/file0 to d/file5, whose content looks far back; and its index, which has
/// spans of 64 KiB.
struct PackedLayer {
  /// @param seed  another one makes other files
  explicit PackedLayer(unsigned seed = 3) {
    erofs_oci::testing::TarMaker maker;
    maker.dir("d");
    for (unsigned i = 0; i < 6; ++i) {
      maker.member({.name = "d/file" + std::to_string(i)},
                   erofs_oci::testing::compressible_bytes(70'000, seed));
    }
    tar = maker.end().bytes();
    gzip = erofs_oci::testing::gzip_blob({{tar, 6, 0, 30'000}}).blob;
    index =
        erofs_oci::tarindex::build_layer(erofs_oci::Memory(gzip), {.span_size = 64 * 1024}).value();
  }

  erofs_oci::Bytes tar, gzip;
  erofs_oci::tarindex::BuiltLayer index;
};

/// A layer that is there as a whole.
inline FoundLayer found_layer(erofs_oci::Bytes const& blob, erofs_oci::Digest const& digest) {
  erofs_oci::Descriptor descriptor;
  descriptor.digest = digest;
  descriptor.size = blob.size();
  return {0, descriptor,
          erofs_oci::Shared<erofs_oci::AnySource>(erofs_oci::AnySource(erofs_oci::Memory(blob)))};
}

}  // namespace mount_oci
