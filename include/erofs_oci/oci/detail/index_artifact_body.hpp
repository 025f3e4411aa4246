// SPDX-License-Identifier: Apache-2.0
/// @file
/// What oci/index_artifact.hpp only declares.
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/oci/index_artifact.hpp>

namespace erofs_oci {

EROFS_OCI_BODY Manifest make_index_artifact(Descriptor const& image,
                                            std::vector<Descriptor> parts) {
  Manifest out;
  out.media_type = media_type::oci_manifest;
  out.artifact_type = index_artifact::type;
  out.config = descriptor_of(index_artifact::empty_type, as_bytes(index_artifact::empty_config));
  out.layers = std::move(parts);
  out.subject = Descriptor{};
  out.subject->media_type = image.media_type;
  out.subject->digest = image.digest;
  out.subject->size = image.size;
  return out;
}

EROFS_OCI_BODY Descriptor describe_tree(std::span<std::byte const> file, Digest const& root,
                                        Digest const& metadata) {
  auto out = descriptor_of(index_artifact::tree_type, file);
  out.annotations[index_artifact::tree_root] = root.to_string();
  out.annotations[index_artifact::tree_metadata] = metadata.to_string();
  return out;
}

EROFS_OCI_BODY Descriptor describe_index(std::span<std::byte const> packed, Digest const& layer) {
  auto out = descriptor_of(index_artifact::layer_type, packed);
  out.annotations[index_artifact::layer_digest] = layer.to_string();
  return out;
}

EROFS_OCI_BODY Descriptor describe_checkpoints(std::span<std::byte const> file,
                                               Digest const& layer) {
  auto out = descriptor_of(index_artifact::checkpoints_type, file);
  out.annotations[index_artifact::layer_digest] = layer.to_string();
  return out;
}

EROFS_OCI_BODY Descriptor describe_start_list(std::span<std::byte const> file) {
  return descriptor_of(index_artifact::start_list_type, file);
}

}  // namespace erofs_oci
