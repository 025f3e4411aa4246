// SPDX-License-Identifier: Apache-2.0
/// @file
/// Image: the manifest that a reference leads to, and the way there through indexes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/oci/manifest.hpp>

namespace erofs_oci {

/// One platform's image.
struct Image {
  Digest digest;                     ///< of the manifest: names the image for good
  Digest top;                        ///< of what the reference named: the index, or the same
  Manifest manifest;                 ///< its layers, lowest first
  std::optional<Platform> platform;  ///< as the index says, if there was one that does
};

/// Follows a reference through indexes to one platform's manifest.
///
/// @param fetch   `(std::string target, std::optional<std::uint64_t> size)` gives the Document of
///                that tag or digest, with its checked digest
/// @param target  the tag or digest to begin with
/// @error{Errc::corrupt, indexes nest deeper than 4}
/// @error{Errc::not_found, nothing is for that platform}
/// @error{as `fetch`, as `fetch`}
template <class Fetch>
[[nodiscard]] Result<Image> resolve_image(Fetch const& fetch, std::string target,
                                          Platform const& platform) {
  constexpr unsigned most_indexes = 4;
  Image image;
  std::optional<std::uint64_t> size;
  for (unsigned depth = 0;; ++depth) {
    Result<std::pair<Digest, Document>> found = fetch(target, size);
    if (!found) return fail(std::move(found).error());
    image.digest = found->first;
    if (depth == 0) image.top = found->first;
    if (auto* const manifest = std::get_if<Manifest>(&found->second)) {
      image.manifest = std::move(*manifest);
      return image;
    }
    if (depth == most_indexes) return fail(Errc::corrupt, target + ": indexes nest too deeply");
    auto chosen = choose_platform(std::get<Index>(found->second), platform);
    if (!chosen) return fail(std::move(chosen).error(), target);
    if (chosen->platform) image.platform = chosen->platform->normalised();
    target = chosen->digest.to_string();
    size = chosen->size;
  }
}

}  // namespace erofs_oci
