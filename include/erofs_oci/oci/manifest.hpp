// SPDX-License-Identifier: Apache-2.0
/// @file
/// Manifest and Index: read, written, and chosen from. OCI's and Docker's types alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/oci/descriptor.hpp>

namespace erofs_oci {

/// One image: its layers, lowest first. @spec{OCI image-spec 1.1, manifest.md}
struct Manifest {
  std::string media_type;  ///< never empty after parse_document(): the OCI type if it was missing
  std::string artifact_type;
  Descriptor config;
  std::vector<Descriptor> layers;
  std::optional<Descriptor> subject;
  std::map<std::string, std::string> annotations;

  friend bool operator==(Manifest const&, Manifest const&) = default;
};

/// A list of manifests, one a platform. @spec{OCI image-spec 1.1, image-index.md}
struct Index {
  std::string media_type;  ///< as in Manifest
  std::string artifact_type;
  std::vector<Descriptor> manifests;
  std::optional<Descriptor> subject;
  std::map<std::string, std::string> annotations;

  friend bool operator==(Index const&, Index const&) = default;
};

/// What a reference leads to.
using Document = std::variant<Manifest, Index>;

/// A document that was found under a tag or digest.
struct FoundDocument {
  Digest digest;           ///< of its text; checked
  std::uint64_t size = 0;  ///< bytes of its text
  Document document;
};

/// Longest manifest or index that is read, in bytes.
inline constexpr std::size_t max_document_size = 4 * 1024 * 1024;

/// Most layers in a manifest: each takes up to four descriptors, of the 1024 that a process usually
/// may have. Docker stops at 127.
inline constexpr std::size_t max_manifest_layers = 200;

/// Most manifests in an index.
inline constexpr std::size_t max_index_manifests = 10000;

/// Reads a manifest or an index.
///
/// @param content_type  what the server called it, with or without parameters; may be empty
/// @error{Errc::unsupported, Docker's schema 1\, or a media type that is neither}
/// @error{Errc::mismatch, the document calls itself something else than the server did}
/// @error{Errc::corrupt, anything else that it must not be}
[[nodiscard]] Result<Document> parse_document(std::span<std::byte const> bytes,
                                              std::string_view content_type = {});

/// JSON that parse_document() reads as the same value.
[[nodiscard]] std::string encode(Manifest const& manifest);
[[nodiscard]] std::string encode(Index const& index);

/// Points to a blob or a document with these bytes.
[[nodiscard]] Descriptor descriptor_of(std::string_view media_type,
                                       std::span<std::byte const> bytes);

/// Whether an index entry is an image at all, rather than an attestation or a SOCI index about one.
[[nodiscard]] bool is_image_entry(Descriptor const& entry);

/// The entry that runs best on `wanted`; the first of equals. A single image without a platform is
/// taken as it is.
/// @error{Errc::not_found, none does; the message lists what is there}
[[nodiscard]] Result<Descriptor> choose_platform(Index const& index, Platform const& wanted);

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/oci/detail/manifest_body.hpp>
#endif
