// SPDX-License-Identifier: Apache-2.0
/// @file
/// What oci/index_artifact.hpp only declares.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/index_artifact.hpp>

namespace erofs_oci {

EROFS_OCI_BODY Manifest make_index_artifact(Descriptor const& image,
                                            std::vector<Descriptor> parts) {
  Manifest out;
  out.media_type = media_type::oci_manifest;
  out.artifact_type = index_artifact::type;
  out.config.media_type = index_artifact::empty_type;
  out.config.digest = digest_of(as_bytes(index_artifact::empty_config));
  out.config.size = index_artifact::empty_config.size();
  out.layers = std::move(parts);
  out.subject = Descriptor{};
  out.subject->media_type = image.media_type;
  out.subject->digest = image.digest;
  out.subject->size = image.size;
  return out;
}

namespace detail {

[[nodiscard]] inline Descriptor describe_part(std::string_view type,
                                              std::span<std::byte const> bytes) {
  Descriptor out;
  out.media_type = type;
  out.digest = digest_of(bytes);
  out.size = bytes.size();
  return out;
}

}  // namespace detail

EROFS_OCI_BODY Descriptor describe_tree(std::span<std::byte const> file, Digest const& root,
                                        Digest const& metadata) {
  auto out = detail::describe_part(index_artifact::tree_type, file);
  out.annotations[index_artifact::tree_root] = root.to_string();
  out.annotations[index_artifact::tree_metadata] = metadata.to_string();
  return out;
}

EROFS_OCI_BODY Descriptor describe_index(std::span<std::byte const> packed, Digest const& layer) {
  auto out = detail::describe_part(index_artifact::layer_type, packed);
  out.annotations[index_artifact::layer_digest] = layer.to_string();
  return out;
}

EROFS_OCI_BODY Descriptor describe_checkpoints(std::span<std::byte const> file,
                                               Digest const& layer) {
  auto out = detail::describe_part(index_artifact::checkpoints_type, file);
  out.annotations[index_artifact::layer_digest] = layer.to_string();
  return out;
}

EROFS_OCI_BODY Descriptor describe_start_list(std::span<std::byte const> file) {
  return detail::describe_part(index_artifact::start_list_type, file);
}

}  // namespace erofs_oci
