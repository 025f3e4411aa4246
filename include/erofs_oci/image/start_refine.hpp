// SPDX-License-Identifier: Apache-2.0
/// @file
/// refine_start: makes the ranges of a start list shorter, by checkpoints where they begin.
#pragma once

#include <span>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/gzip/find_checkpoints.hpp>
#include <erofs_oci/image/start_fetcher.hpp>
#include <erofs_oci/image/start_list.hpp>

namespace erofs_oci {

/// A start list, and the checkpoints of one layer that it counts on.
struct RefinedStart {
  StartList list;
  ExtraCheckpoints extra;
};

/// Replaces the ranges of `layer` in `list` by those that what was read of it takes, once the layer
/// is read by the checkpoints that are found or known; all come where the first of the old ones
/// was. If there are none, `list` is as it was.
/// @param layer  with StartLayer::find_checkpoints
/// @param reads  what reads have got of its decoded stream, in order
/// @param blob   has what was fetched of the layer, and an error in place of the rest
/// @error{as find_checkpoints(), as there}
[[nodiscard]] Result<RefinedStart> refine_start(StartList const& list, StartLayer const& layer,
                                                std::span<ByteRange const> reads,
                                                AnySource const& blob);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/start_refine_body.hpp>
#endif
