// SPDX-License-Identifier: Apache-2.0
/// @file
/// What oci/layout.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/image.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/layout.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/source/local.hpp>

namespace erofs_oci {

EROFS_OCI_BODY Result<Bytes> Layout::read_file(std::string const& path, std::size_t longest) {
  EROFS_OCI_TRY_ASSIGN(auto const file, Local::open(path));
  if (file.size() > longest) return fail(Errc::unsupported, path + ": too long");
  Bytes bytes(static_cast<std::size_t>(file.size()));
  EROFS_OCI_TRY(read_exact(file, 0, bytes), path);
  return bytes;
}

EROFS_OCI_BODY Result<Layout> Layout::open(std::string directory) {
  auto const mark_path = directory + "/oci-layout";
  EROFS_OCI_TRY_ASSIGN(auto const mark, read_file(mark_path, 64 * 1024));
  EROFS_OCI_TRY_ASSIGN(auto const value, json::parse(mark, mark_path));
  auto const version = json::text(value, "imageLayoutVersion");
  if (!version || !version->starts_with("1.")) {
    return fail(Errc::unsupported, mark_path + ": not an image layout of version 1");
  }
  auto const index_path = directory + "/index.json";
  EROFS_OCI_TRY_ASSIGN(auto const bytes, read_file(index_path, max_document_size));
  EROFS_OCI_TRY_ASSIGN(auto document, parse_document(bytes), index_path);
  auto* const index = std::get_if<Index>(&document);
  if (index == nullptr) return fail(Errc::corrupt, index_path + ": not an index");
  return Layout(std::move(directory), std::move(*index));
}

EROFS_OCI_BODY Result<FoundDocument> Layout::document_at(Digest const& digest,
                                                         std::optional<std::uint64_t> size) const {
  auto const path = path_of(digest);
  EROFS_OCI_TRY_ASSIGN(auto const bytes, read_file(path, max_document_size));
  if (size && bytes.size() != *size) return detail::wrong_size(path, bytes.size(), *size);
  auto const computed = digest_of(bytes, digest.algorithm());
  if (computed != digest) {
    return fail(Errc::digest_mismatch, path + ": its digest is " + computed.to_string());
  }
  EROFS_OCI_TRY_ASSIGN(auto document, parse_document(bytes), path);
  return FoundDocument{digest, bytes.size(), std::move(document)};
}

EROFS_OCI_BODY Result<FoundDocument> Layout::document(std::string const& tag_or_digest,
                                                      std::optional<std::uint64_t> size) const {
  auto const missing = [&] {
    return fail(Errc::not_found, directory_ + ": no " + detail::quote(tag_or_digest));
  };
  auto digest = Digest::parse(tag_or_digest);
  if (!digest) {
    auto const tagged = std::ranges::find_if(index_.manifests, [&](Descriptor const& one) {
      return one.annotation(ref_name) == tag_or_digest;
    });
    if (tagged == index_.manifests.end()) return missing();
    digest = tagged->digest;
    if (!size) size = tagged->size;
  }
  auto found = document_at(*digest, size);
  if (!found && found.error().code == std::errc::no_such_file_or_directory) return missing();
  return found;
}

EROFS_OCI_BODY Result<std::vector<Descriptor>> Layout::referrers(
    Digest const& digest, std::string_view artifact_type) const {
  std::vector<Descriptor> out;
  for (auto const& entry : index_.manifests) {
    if (entry.artifact_type != artifact_type) continue;
    auto const found = document_at(entry.digest, entry.size);
    auto const* const manifest = found ? std::get_if<Manifest>(&found->document) : nullptr;
    if (manifest != nullptr && manifest->subject && manifest->subject->digest == digest) {
      out.push_back(entry);
    }
  }
  return out;
}

EROFS_OCI_BODY Result<Descriptor> Layout::entry(std::string const& name,
                                                Platform const& platform) const {
  if (name.empty()) {
    auto const first = std::ranges::find_if(index_.manifests, is_image_entry);
    if (first != index_.manifests.end() &&
        std::none_of(std::next(first), index_.manifests.end(), is_image_entry)) {
      return *first;
    }
    auto chosen = choose_platform(index_, platform);
    if (!chosen) return fail(std::move(chosen).error(), directory_ + ": several images, no tag");
    return chosen;
  }
  auto const digest = Digest::parse(name);
  std::string there;
  for (auto const& candidate : index_.manifests) {
    auto const tag = candidate.annotation(ref_name);
    if (digest ? candidate.digest == *digest : tag == name) return candidate;
    if (tag) there += (there.empty() ? "" : ", ") + detail::quote(*tag);
  }
  return fail(Errc::not_found, directory_ + ": no image " + detail::quote(name) +
                                   (there.empty() ? "" : "; it has " + there));
}

EROFS_OCI_BODY Result<Image> Layout::resolve(std::string const& name,
                                             Platform const& platform) const {
  EROFS_OCI_TRY_ASSIGN(auto const start, entry(name, platform));
  auto const fetch = [&](std::string const& target, std::optional<std::uint64_t> size) {
    // Made by to_string(), so it parses.
    return document_at(*Digest::parse(target), size ? size : start.size);
  };
  EROFS_OCI_TRY_ASSIGN(auto image, resolve_image(fetch, start.digest.to_string(), platform),
                       directory_);
  if (!image.platform && start.platform) image.platform = start.platform->normalised();
  return image;
}

EROFS_OCI_BODY Result<Local> Layout::blob(Descriptor const& descriptor) const {
  auto const path = path_of(descriptor.digest);
  EROFS_OCI_TRY_ASSIGN(auto file, Local::open(path));
  if (file.size() != descriptor.size) {
    return detail::wrong_size(path, file.size(), descriptor.size);
  }
  return file;
}

}  // namespace erofs_oci
