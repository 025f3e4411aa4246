// SPDX-License-Identifier: Apache-2.0
/// @file
/// build_layer: a layer's tarindex and index file from one pass over its blob.
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/write_options.hpp>
#include <erofs_oci/gzip/layer_index.hpp>
#include <erofs_oci/tarindex/layer.hpp>

namespace erofs_oci::tarindex {

/// How to build a layer's indexes.
struct BuildOptions {
  /// Wanted distance between checkpoints, see CheckpointChooser. A plain layer, whose spans are
  /// fetched as a whole, has spans of four times as many bytes. Range: 64 KiB or more.
  std::uint64_t span_size = index_span_size;
  LayerOptions layer{};
  erofs::Addressing addressing = erofs::Addressing::device_table;
  /// Called with the number of the blob's bytes done so far, on the building thread. May be empty.
  std::function<void(std::uint64_t done)> progress{};
  std::stop_token stop{};  ///< ends the build early
  /// Most decoded bytes. Default: 64 GiB, or 64 times what was read of the blob, if that is more.
  std::optional<std::uint64_t> max_decoded{};
  /// When the build gives up. Default: never.
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
};

/// A layer's indexes.
struct BuiltLayer {
  LayerIndex index;                  ///< names the tarindex by its digest
  Layer layer;                       ///< the tree; its data are on device 1
  Bytes tarindex;                    ///< EROFS image of the tree
  std::uint64_t dropped_xattrs = 0;  ///< attributes that no image can hold, and that are left out
};

/// The name of a layer's data in a device table: its diffID, or the blob's digest if that is not
/// known.
[[nodiscard]] std::string data_name(LayerIndex const& index);

/// The blocks of a layer's tar: all of the stream, so that layers can simply follow each other.
[[nodiscard]] erofs::Device device_of(LayerIndex const& index);

/// Writes the image of `built.layer`'s tree, with overlay marks, and names it in `built.index`,
/// whose sizes and digests are known by then.
/// @error{as erofs::Writer::make(), as there}
[[nodiscard]] Result<void> write_tarindex(
    BuiltLayer& built, erofs::Addressing addressing = erofs::Addressing::device_table);

namespace detail {

// What a blob's first bytes say.
[[nodiscard]] Result<BlobEncoding> encoding_of(std::span<std::byte const> start);

/// Hands all bytes of `blob` to `take`, with the progress, the stop and the deadline of `options`,
/// and counts them in `options.layer.memory`.
[[nodiscard]] Result<void> read_through(
    AnySource const& blob, BuildOptions const& options,
    FunctionRef<Result<void>(std::span<std::byte const> piece)> take);

[[nodiscard]] Result<BuiltLayer> build_layer_of(AnySource const& blob, BuildOptions const& options);

}  // namespace detail

/// Reads `blob` once, front to back, and makes its indexes. Blocks. Checks gzip CRCs and lengths,
/// the tar's headers and its completeness; the caller must compare the digests with those that it
/// expects.
///
/// The same blob and options give the same bytes, on any machine.
/// @error{Errc::corrupt, no gzip\, or no tar; the text gives the offset}
/// @error{Errc::truncated, the blob ends inside a member of the gzip or of the tar}
/// @error{Errc::unsupported, zstd\, or a file that no image can hold; the text names it}
/// @error{Errc::unsupported, it takes more memory than `options.layer.memory` has\, or more than
/// `options.max_decoded`}
/// @error{Errc::timed_out, `options.deadline` has passed}
/// @error{Errc::stopping, a stop was asked for}
template <RandomAccessSource S>
[[nodiscard]] Result<BuiltLayer> build_layer(S const& blob, BuildOptions const& options = {}) {
  if constexpr (std::same_as<S, AnySource>) {
    return detail::build_layer_of(blob, options);
  } else {
    return detail::build_layer_of(AnySource(Ref(blob)), options);
  }
}

}  // namespace erofs_oci::tarindex

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tarindex/detail/build_body.hpp>
#endif
