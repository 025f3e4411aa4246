// SPDX-License-Identifier: Apache-2.0
/// @file
/// IndexArtifact: the indexes of an image's layers, in a registry beside the image.
///
/// An image manifest whose subject is the manifest of the image, whose artifactType is
/// index_artifact::type, and whose layers are packed indexes (doc/formats), each annotated with the
/// digest of the image's layer that it is for; behind them, where that was asked for, extra
/// checkpoints of layers and the image's start list. Anyone who may push to the repository can add
/// one, without a change to the image: its indexes say what the files of the image are, so take one
/// only from whom you would take the image. @spec{OCI image-spec 1.1, manifest.md, guidelines for
/// artifact usage}
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/oci/manifest.hpp>

namespace erofs_oci {

/// What an index artifact is made of.
namespace index_artifact {

inline constexpr std::string_view type = media_type::index_artifact;
inline constexpr std::string_view layer_type = "application/vnd.erofs-oci.layer-index.v1+gzip";
inline constexpr std::string_view checkpoints_type = "application/vnd.erofs-oci.checkpoints.v1";
inline constexpr std::string_view start_list_type = "application/vnd.erofs-oci.start-list.v1";
inline constexpr std::string_view empty_type = "application/vnd.oci.empty.v1+json";
inline constexpr std::string_view empty_config = "{}";
/// On the descriptor of a packed index or of checkpoints: the digest of their layer.
inline constexpr char const* layer_digest = "dev.erofs-oci.layer.digest";
inline constexpr std::string_view tree_type = "application/vnd.erofs-oci.verity.v1";
/// On a Merkle tree's descriptor: its root hash, and the digest of the merged metadata with which
/// the device begins that it is of.
inline constexpr char const* tree_root = "dev.erofs-oci.verity.root";
inline constexpr char const* tree_metadata = "dev.erofs-oci.verity.metadata";

}  // namespace index_artifact

/// The Merkle tree of an image, see digest/verity_tree.hpp.
struct ArtifactTree {
  Descriptor at;    ///< of its file
  Digest root;      ///< its root hash
  Digest metadata;  ///< of the merged metadata; a device that begins with others has another tree
};

/// The indexes of an image. Layers that need none have none.
struct IndexArtifact {
  Digest digest;                          ///< of the artifact's manifest
  std::vector<Descriptor> indexes;        ///< each with its layer's digest in an annotation
  std::vector<Descriptor> checkpoints{};  ///< extra ones, as a file, each annotated in the same way
  std::optional<Descriptor> start_list{};  ///< of the image, as a file; the first of several
  std::optional<ArtifactTree> tree{};      ///< of all layers together; the first of several

  /// The index of a layer, if there is one; the first of several.
  [[nodiscard]] Descriptor const* index_of(Digest const& layer) const {
    return of_layer(indexes, layer);
  }

  /// The extra checkpoints of a layer, in the same way.
  [[nodiscard]] Descriptor const* checkpoints_of(Digest const& layer) const {
    return of_layer(checkpoints, layer);
  }

 private:
  [[nodiscard]] static Descriptor const* of_layer(std::vector<Descriptor> const& list,
                                                  Digest const& layer) {
    auto const name = layer.to_string();
    auto const found = std::ranges::find_if(list, [&](Descriptor const& d) {
      return d.annotation(index_artifact::layer_digest) == name;
    });
    return found == list.end() ? nullptr : &*found;
  }
};

/// The artifact that a manifest is.
/// @param digest  of the manifest
/// @param image   digest of the image's manifest
/// @error{Errc::mismatch, the manifest is something else\, or of another image}
[[nodiscard]] inline Result<IndexArtifact> read_index_artifact(Manifest const& manifest,
                                                               Digest const& digest,
                                                               Digest const& image) {
  auto const name = digest.to_string();
  if (manifest.artifact_type != index_artifact::type) {
    return fail(Errc::mismatch, name + ": not an index artifact");
  }
  if (!manifest.subject || manifest.subject->digest != image) {
    return fail(Errc::mismatch, name + ": an index artifact of another image");
  }
  IndexArtifact out;
  out.digest = digest;
  for (auto const& part : manifest.layers) {
    auto const of_layer = part.annotations.contains(index_artifact::layer_digest);
    if (of_layer && part.media_type == index_artifact::layer_type) out.indexes.push_back(part);
    if (of_layer && part.media_type == index_artifact::checkpoints_type) {
      out.checkpoints.push_back(part);
    }
    if (part.media_type == index_artifact::start_list_type && !out.start_list) {
      out.start_list = part;
    }
    if (part.media_type != index_artifact::tree_type || out.tree) continue;
    auto const root = Digest::parse(part.annotation(index_artifact::tree_root).value_or(""));
    auto const of = Digest::parse(part.annotation(index_artifact::tree_metadata).value_or(""));
    if (root && of) out.tree = ArtifactTree{part, *root, *of};
  }
  return out;
}

/// The artifact's manifest; the same one for the same image and parts.
/// @param image  the manifest of the image, without annotations
/// @param parts  as describe_index() makes them, in the order of the layers; then what
///               describe_checkpoints() and describe_start_list() make
[[nodiscard]] Manifest make_index_artifact(Descriptor const& image, std::vector<Descriptor> parts);

/// Points to the file of a Merkle tree.
[[nodiscard]] Descriptor describe_tree(std::span<std::byte const> file, Digest const& root,
                                       Digest const& metadata);

/// Points to a packed index.
[[nodiscard]] Descriptor describe_index(std::span<std::byte const> packed, Digest const& layer);

/// Points to extra checkpoints of a layer, see doc/formats.
[[nodiscard]] Descriptor describe_checkpoints(std::span<std::byte const> file, Digest const& layer);

/// Points to the start list of the image, see doc/formats.
[[nodiscard]] Descriptor describe_start_list(std::span<std::byte const> file);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/oci/detail/index_artifact_body.hpp>
#endif
