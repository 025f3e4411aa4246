// SPDX-License-Identifier: Apache-2.0
/// @file
/// The image that a run reads, and what each byte of its device must be.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/oci/descriptor.hpp>

#include "scheduler.hpp"

namespace simulation {

/// A layer and where its tar lies on the device.
struct ImageLayerBytes {
  erofs_oci::Descriptor descriptor;
  erofs_oci::Bytes blob;
  bool is_plain = false;    ///< not compressed
  std::uint64_t begin = 0;  ///< on the device, bytes
  std::uint64_t end = 0;    ///< with the zeros that fill up a block
};

/// An image.
struct SimulatedImage {
  std::vector<ImageLayerBytes> layers;  ///< from the bottom up
  std::string manifest;
  erofs_oci::Digest manifest_digest;
  erofs_oci::Bytes config;
  erofs_oci::Descriptor config_at;
  std::uint64_t span_size = 0;
  /// Metadata as the product makes them of the undamaged layers, then the layers' tars.
  erofs_oci::Bytes device;
};

/// Makes an image of 1 to 4 layers, plain and in gzip of one or several members and any level. Ends
/// the program if the product puts anything else on the device than the tars, byte by byte.
[[nodiscard]] SimulatedImage make_image(Random random);

}  // namespace simulation
