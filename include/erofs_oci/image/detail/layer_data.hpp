// SPDX-License-Identifier: Apache-2.0
/// @file
/// open_layer_data: the one rule by which layers' data are checked, decoded and kept in memory.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <erofs_oci/combinator/proof.hpp>
#include <erofs_oci/combinator/verified.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/gzip/layer_index.hpp>
#include <erofs_oci/image/held_memory.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/image/read_options.hpp>
#include <erofs_oci/image/start_fetcher.hpp>

namespace erofs_oci::detail {

/// One layer's data and how to read them.
struct LayerData {
  std::string name{};  ///< put before errors; may be empty
  AnySource blob;      ///< as it is stored
  /// Digests of all that is read of the blob; empty: nothing is known to check it by.
  std::optional<std::vector<VerifiedChunk>> digests{};
  std::optional<GzipIndex> gzip{};              ///< what to decode by; empty: it is plain
  std::optional<std::uint64_t> decoded_size{};  ///< if known for certain
  std::uint64_t span_size = 1 << 20;            ///< of a plain one: bytes fetched at a time
  std::uint64_t granule = index_piece_size;     ///< of a gzip: as GzranOptions::granule
  std::shared_ptr<Proof const> proof{};         ///< of a blob that is Proved; else null
  std::optional<Digest> digest{};               ///< SHA-256 of the blob, if its index names one
  ExtraCheckpoints extra{};                     ///< those of `gzip` that its index does not have
  std::string entry{};                          ///< as StoredLayer::entry
  /// How parts are fetched before they are read; set by open_layer_data(), of a remote layer with
  /// a digest.
  std::optional<StartLayer> start{};
};

/// Whether each span is short enough to be read as a whole.
/// @error{Errc::unsupported, one is not}
[[nodiscard]] Result<void> check_spans(std::span<VerifiedChunk const> spans, std::uint64_t most);

/// What a layer's index says of its data.
/// @error{Errc::mismatch, the index is for a blob of another size}
[[nodiscard]] Result<LayerData> stored_data(AnySource blob, StoredLayer const& stored,
                                            std::string name);

/// Puts the data of all layers that are read together in place of their blobs. Yields what
/// counts the bytes held now, also when all layers have ended.
///
/// Each blob is checked wherever there are digests for it. `options.cache_bytes` bounds what is
/// kept for all of them: plain layers have a quarter of it together, or all if every layer is
/// plain, and share it, so that it does not matter how many there are. They are kept in whole
/// spans, of which a layer's last is as long as the others. Only a local blob without digests or
/// proof is not kept: the kernel does.
/// @error{as check_spans(), for `options.max_span`}
[[nodiscard]] Result<HeldMemory> open_layer_data(std::span<LayerData> layers,
                                                 ImageReadOptions const& options);

}  // namespace erofs_oci::detail

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/layer_data_body.hpp>
#endif
