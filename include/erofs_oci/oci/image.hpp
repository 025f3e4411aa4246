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
  std::uint64_t size = 0;            ///< bytes of the manifest's text
};

namespace detail {

/// The error of a document or blob whose size is not the one that its descriptor says.
[[nodiscard]] inline tl::unexpected<Error> wrong_size(std::string const& where, std::uint64_t size,
                                                      std::uint64_t expected) {
  return fail(Errc::mismatch, where + ": " + std::to_string(size) + " bytes, expected are " +
                                  std::to_string(expected));
}

}  // namespace detail

/// Follows a reference through indexes to one platform's manifest.
///
/// @param fetch   `(std::string target, std::optional<std::uint64_t> size)` gives the
///                FoundDocument of that tag or digest
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
    EROFS_OCI_TRY_ASSIGN(auto found, fetch(target, size));
    image.digest = found.digest;
    image.size = found.size;
    if (depth == 0) image.top = found.digest;
    if (auto* const manifest = std::get_if<Manifest>(&found.document)) {
      image.manifest = std::move(*manifest);
      return image;
    }
    if (depth == most_indexes) return fail(Errc::corrupt, target + ": indexes nest too deeply");
    EROFS_OCI_TRY_ASSIGN(auto chosen, choose_platform(std::get<Index>(found.document), platform),
                         target);
    if (chosen.platform) image.platform = chosen.platform->normalised();
    target = chosen.digest.to_string();
    size = chosen.size;
  }
}

}  // namespace erofs_oci
