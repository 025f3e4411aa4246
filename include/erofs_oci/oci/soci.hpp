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
/// saw. Whoever must not trust that reads all of the layer once and compares the decoded stream
/// with the image's diffID, or makes an index from the layer in the first place.
/// @spec{SOCI snapshotter, SOCI index manifest}
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/descriptor.hpp>
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
  auto found = registry.document(digest.to_string(), size);
  if (!found) return fail(std::move(found).error());
  auto* const manifest = std::get_if<Manifest>(&found->second);
  if (manifest == nullptr) {
    return fail(Errc::mismatch, digest.to_string() + ": an index of images, not a SOCI index");
  }
  return std::move(*manifest);
}

/// What may be a SOCI index: it says so, or it says nothing, and the manifest has to be asked.
[[nodiscard]] inline std::vector<Descriptor> soci_candidates(std::vector<Descriptor> referrers) {
  constexpr std::size_t most = 8;  // requests spent on what may be anything
  std::erase_if(referrers, [](Descriptor const& d) {
    return !d.artifact_type.empty() && d.artifact_type != media_type::soci_v1;
  });
  std::ranges::stable_partition(referrers,
                                [](Descriptor const& d) { return !d.artifact_type.empty(); });
  if (referrers.size() > most) referrers.resize(most);
  return referrers;
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
    auto const digest = Digest::parse(named->second);
    if (!digest) return fail(digest.error(), "annotation");
    auto const manifest = detail::soci_manifest(registry, *digest, std::nullopt);
    if (!manifest) return fail(manifest.error(), "SOCI index");
    auto index = soci_index(*manifest, *digest, SociBinding::by_digest);
    if (!index) return fail(std::move(index).error());
    return std::optional(*std::move(index));
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

/// The bytes of a ztoc, checked against its descriptor. One request; memory is taken as bytes come.
/// @param ztoc  from a SociIndex
/// @param most  larger ones are refused without a request
/// @error{Errc::unsupported, it is larger than `most`}
/// @error{Errc::digest_mismatch, the bytes are not those that the digest names}
/// @error{as BasicOciBlob::read_at(), as it says}
template <HttpTransport Transport, Clock Time>
[[nodiscard]] Result<Bytes> fetch_ztoc(BasicRegistry<Transport, Time> const& registry,
                                       Descriptor const& ztoc, std::uint64_t most = max_ztoc_size) {
  auto const where = "ztoc " + ztoc.digest.to_string();
  if (ztoc.size > most) {
    return fail(Errc::unsupported, where + ": " + std::to_string(ztoc.size) + " bytes, more than " +
                                       std::to_string(most));
  }
  auto const blob = registry.blob(ztoc);
  Bytes bytes;
  auto const ok = stream(blob, 0, ztoc.size, [&](std::span<std::byte const> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return true;
  });
  if (!ok) return fail(ok.error(), where);
  if (bytes.size() != ztoc.size) return fail(Errc::truncated, where);
  if (digest_of(bytes, ztoc.digest.algorithm()) != ztoc.digest) {
    return fail(Errc::digest_mismatch, where + ": the registry sent something else");
  }
  return bytes;
}

}  // namespace erofs_oci
