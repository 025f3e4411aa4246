// SPDX-License-Identifier: Apache-2.0
/// @file
/// Chain IDs: what a stack of layers is called.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>

#include "snapshot.hpp"

namespace oci_snapshotter {

/// The chain ID of the layers that have these diffIDs, from the bottom up; empty for none.
/// @spec{OCI image specification 1.0, config.md, Layer ChainID}
[[nodiscard]] inline std::string chain_id(std::span<erofs_oci::Digest const> diff_ids) {
  std::string chain;
  for (auto const& diff_id : diff_ids) {
    auto const text = diff_id.to_string();
    chain = chain.empty()
                ? text
                : erofs_oci::digest_of(erofs_oci::as_bytes(chain + " " + text)).to_string();
  }
  return chain;
}

/// A name for the file system of these layers, from the bottom up: of the same layers in the same
/// order, and of no others.
[[nodiscard]] inline std::string stack_name(std::span<LayerFacts const> layers) {
  std::string all;
  for (auto const& layer : layers) all += layer.digest.to_string() + "\n";
  return erofs_oci::digest_of(erofs_oci::as_bytes(all)).hex();
}

}  // namespace oci_snapshotter
