// SPDX-License-Identifier: Apache-2.0
/// @file
/// ztoc_layer: the tree of one layer from the list of members in its ztoc, without its tar.
#pragma once

#include <optional>
#include <string_view>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/ztoc.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tarindex/layer.hpp>

namespace erofs_oci::tarindex {

/// A time as Go's time.MarshalText writes it: `2006-01-02T15:04:05.999999999+01:00`, or with `Z`.
/// Empty for anything else. @spec{RFC 3339 5.6; no leap seconds}
[[nodiscard]] std::optional<tar::Time> rfc3339_time(std::string_view text) noexcept;

/// The layer that a ztoc lists, as LayerBuilder makes it from the tar itself; extents are in the
/// decoded stream. Names are Go's, which are the archive's own: cleaned here as always.
///
/// A ztoc does not hold: the holes of sparse files, whether padding is zeros, owners beyond 32 bits
/// (its maker truncates them), records that a later one of the same key replaced. Where such a loss
/// can be detected, it is an error. After any error the layer itself has to be read.
/// @error{Errc::unsupported, it does not say enough\, or contradicts itself}
/// @error{as LayerBuilder::apply(), as it says}
[[nodiscard]] Result<Layer> ztoc_layer(Ztoc const& ztoc, LayerOptions options = {});

}  // namespace erofs_oci::tarindex

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tarindex/detail/ztoc_layer_body.hpp>
#endif
