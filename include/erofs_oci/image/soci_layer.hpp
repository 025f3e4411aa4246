// SPDX-License-Identifier: Apache-2.0
/// @file
/// soci_layer: a layer's indexes from a ztoc, without reading the layer.
#pragma once

#include <memory>

#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/ztoc.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/tarindex/build.hpp>

namespace erofs_oci {

/// Makes the indexes of a layer from its ztoc. The tree is what the ztoc says of the tar; whether
/// that is true, only reading the layer would tell, so take a ztoc only from whom you would take
/// the image. The diffID stays unknown (zero). Bytes are still checked, against the ztoc's digests.
/// @param layer  the layer that the ztoc is said to be of
/// @param memory  counts what the tree and the spans take
/// @error{Errc::unsupported, a span is longer than MemoryBudget::span()\, or it all takes too much}
/// @error{Errc::unsupported, the ztoc cannot tell all that is needed: build the indexes instead}
/// @error{Errc::corrupt\, Errc::mismatch, it contradicts itself or the layer}
[[nodiscard]] Result<tarindex::BuiltLayer> soci_layer(
    Ztoc ztoc, Descriptor const& layer,
    std::shared_ptr<ImageMemory> const& memory = std::make_shared<ImageMemory>());

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/soci_layer_body.hpp>
#endif
