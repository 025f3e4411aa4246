// SPDX-License-Identifier: Apache-2.0
/// @file
/// SOCI indexes: what a registry knows about how to enter an image's layers.
///
/// A SOCI index is a manifest whose layers are ztocs, each annotated with the layer that it is for.
/// Two ways lead to it:
///   - version 2: the image's own manifest names its digest. Then it is part of the image, and as
///     good as the image's digest is.
///   - version 1: it refers to the image. Anyone who may push to the repository can add or change
///     it, without a change to the image.
///
/// Digests bind the way from the index to the ztocs in both. So a ztoc of version 1 may say
/// anything about its layer; its span digests prove only that the bytes are those that its maker
/// saw. To check that, read all of the layer once and compare the decoded stream with the image's
/// diffID, or makes an index from the layer in the first place.
/// @spec{SOCI snapshotter, SOCI index manifest}
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/oci/fetch_blob.hpp>
#include <erofs_oci/oci/image.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/oci/registry.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {

/// Annotations that SOCI uses.
namespace soci_annotation {

/// On an image's manifest: the digest of its SOCI index, version 2.
inline constexpr char const* index_digest = "com.amazon.soci.index-digest";
/// On a ztoc's descriptor: the digest of its layer.
inline constexpr char const* layer_digest = "com.amazon.soci.image-layer-digest";

}  // namespace soci_annotation

/// Largest ztoc that is fetched by default, in bytes: enough for a layer of 32 GiB, decoded.
inline constexpr std::uint64_t max_ztoc_size = 256 * 1024 * 1024;

/// How an index is bound to its image: the trust that it deserves.
enum class SociBinding : std::uint8_t {
  by_digest,    ///< the image's manifest names it: version 2
  by_referrer,  ///< it names the image: version 1, anyone may have pushed it
};

/// The ztocs of an image. Layers that are small have none.
struct SociIndex {
  Digest digest;  ///< of the index
  SociBinding binding = SociBinding::by_referrer;
  std::vector<Descriptor> ztocs;  ///< each with its layer's digest in an annotation

  /// The ztoc of a layer, if there is one; the first of several.
  [[nodiscard]] Descriptor const* ztoc_of(Digest const& layer) const {
    auto const name = layer.to_string();
    auto const found = std::ranges::find_if(ztocs, [&](Descriptor const& d) {
      return d.annotation(soci_annotation::layer_digest) == name;
    });
    return found == ztocs.end() ? nullptr : &*found;
  }

  friend bool operator==(SociIndex const&, SociIndex const&) = default;
};

/// What a manifest says it is: its artifactType, or its config's type where registries know no
/// artifactType.
[[nodiscard]] inline std::string_view artifact_type(Manifest const& manifest) noexcept {
  return manifest.artifact_type.empty() ? std::string_view(manifest.config.media_type)
                                        : std::string_view(manifest.artifact_type);
}

/// The SOCI index that a manifest is.
/// @param digest   of the manifest
/// @param binding  how it was found: by_digest wants a version 2, by_referrer a version 1
/// @error{Errc::mismatch, the manifest is something else}
[[nodiscard]] inline Result<SociIndex> soci_index(Manifest const& manifest, Digest const& digest,
                                                  SociBinding binding) {
  auto const wanted = binding == SociBinding::by_digest ? media_type::soci_v2 : media_type::soci_v1;
  if (artifact_type(manifest) != wanted) {
    return fail(Errc::mismatch, digest.to_string() + ": not a SOCI index of that version");
  }
  SociIndex index{digest, binding, {}};
  std::ranges::copy_if(manifest.layers, std::back_inserter(index.ztocs), [](Descriptor const& d) {
    return d.annotations.contains(soci_annotation::layer_digest);
  });
  return index;
}

namespace detail {

template <HttpTransport Transport, Clock Time>
[[nodiscard]] Result<Manifest> soci_manifest(BasicRegistry<Transport, Time> const& registry,
                                             Digest const& digest,
                                             std::optional<std::uint64_t> size) {
  EROFS_OCI_TRY_ASSIGN(auto found, registry.document(digest.to_string(), size));
  auto* const manifest = std::get_if<Manifest>(&found.document);
  if (manifest == nullptr) {
    return fail(Errc::mismatch, digest.to_string() + ": an index of images, not a SOCI index");
  }
  return std::move(*manifest);
}

/// Whether a referrer may be a SOCI index: its type says so, or it has none and its manifest must
/// be fetched.
[[nodiscard]] inline std::vector<Descriptor> soci_candidates(
    std::vector<Descriptor> const& referrers) {
  constexpr std::size_t most = 8;  // requests spent on what may be anything
  std::vector<Descriptor> out;
  for (auto const type : {media_type::soci_v1, std::string_view()}) {
    for (auto const& referrer : referrers) {
      if (referrer.artifact_type == type && out.size() < most) out.push_back(referrer);
    }
  }
  return out;
}

}  // namespace detail

/// The image's SOCI index: the one that its manifest names, else the first that refers to it and
/// can be read. Empty if there is none. Two requests, or three where the registry has no referrers
/// API: one of them, or two, for the list.
/// @error{Errc::not_found, the index that the manifest names is not there}
/// @error{Errc::mismatch, it is no SOCI index}
/// @error{as BasicRegistry::document() and referrers(), as they say}
template <HttpTransport Transport, Clock Time>
[[nodiscard]] Result<std::optional<SociIndex>> find_soci_index(
    BasicRegistry<Transport, Time> const& registry, Image const& image) {
  auto const& annotations = image.manifest.annotations;
  if (auto const named = annotations.find(soci_annotation::index_digest);
      named != annotations.end()) {
    EROFS_OCI_TRY_ASSIGN(auto const digest, Digest::parse(named->second), "annotation");
    EROFS_OCI_TRY_ASSIGN(auto const manifest, detail::soci_manifest(registry, digest, std::nullopt),
                         "SOCI index");
    EROFS_OCI_TRY_ASSIGN(auto index, soci_index(manifest, digest, SociBinding::by_digest));
    return std::optional(std::move(index));
  }
  auto referrers = registry.referrers(image.digest, {});
  if (!referrers) return fail(std::move(referrers).error(), "referrers");
  for (auto const& candidate : detail::soci_candidates(*std::move(referrers))) {
    auto const manifest = detail::soci_manifest(registry, candidate.digest, candidate.size);
    if (!manifest && is_transient(manifest.error())) return fail(manifest.error(), "SOCI index");
    if (!manifest) continue;
    if (manifest->subject && manifest->subject->digest != image.digest) continue;
    auto index = soci_index(*manifest, candidate.digest, SociBinding::by_referrer);
    if (index) return std::optional(*std::move(index));
  }
  return std::optional<SociIndex>();
}

/// fetch_blob() for a ztoc.
/// @param ztoc  from a SociIndex
/// @error{as fetch_blob(), as there; the message names the ztoc}
template <HttpTransport Transport, Clock Time>
[[nodiscard]] Result<Bytes> fetch_ztoc(BasicRegistry<Transport, Time> const& registry,
                                       Descriptor const& ztoc, std::uint64_t most = max_ztoc_size) {
  EROFS_OCI_TRY_ASSIGN(auto bytes, fetch_blob(registry, ztoc, most),
                       "ztoc " + ztoc.digest.to_string());
  return bytes;
}

}  // namespace erofs_oci
