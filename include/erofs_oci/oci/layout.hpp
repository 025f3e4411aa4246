// SPDX-License-Identifier: Apache-2.0
/// @file
/// Layout: an OCI image layout directory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/image.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/source/local.hpp>

namespace erofs_oci {

/// A directory with `oci-layout`, `index.json` and `blobs/ALGORITHM/HEX`. Digests are parsed before
/// they become paths, so no name in it leads elsewhere. @spec{OCI image-spec 1.1, image-layout.md}
///
/// @par Thread safety
/// All const members, from any thread.
class Layout {
 public:
  /// The annotation of index.json's entries that holds a tag.
  static constexpr char const* ref_name = "org.opencontainers.image.ref.name";

  /// Reads `oci-layout` and `index.json`.
  /// @error{Errc::unsupported, a version of the layout other than 1}
  /// @error{Errc::corrupt, a file is not what it must be}
  /// @error{an errno, a file cannot be read}
  [[nodiscard]] static Result<Layout> open(std::string directory);

  /// The image for `platform`.
  /// @param name  a tag or digest; empty: the only image, or the one for `platform`
  /// @error{Errc::not_found, no such name\, or none for that platform}
  /// @error{Errc::digest_mismatch, a manifest is not what its digest names}
  [[nodiscard]] Result<Image> resolve(std::string const& name, Platform const& platform) const;

  /// A blob as a source. Its size is checked; its bytes are not, which would mean reading it all.
  /// @error{Errc::mismatch, the file has another size}
  /// @error{an errno, as Local::open()}
  [[nodiscard]] Result<Local> blob(Descriptor const& descriptor) const;

  /// `index.json`.
  [[nodiscard]] Index const& index() const noexcept { return index_; }

  /// The directory, as given.
  [[nodiscard]] std::string const& directory() const noexcept { return directory_; }

 private:
  Layout(std::string directory, Index index)
      : directory_(std::move(directory)), index_(std::move(index)) {}

  static Result<Bytes> read_file(std::string const& path, std::size_t longest) {
    auto const file = Local::open(path);
    if (!file) return fail(file.error());
    if (file->size() > longest) return fail(Errc::unsupported, path + ": too long");
    Bytes bytes(static_cast<std::size_t>(file->size()));
    if (auto ok = read_exact(*file, 0, bytes); !ok) return fail(std::move(ok).error(), path);
    return bytes;
  }

  [[nodiscard]] std::string path_of(Digest const& digest) const {
    return directory_ + "/blobs/" + std::string(to_string(digest.algorithm())) + "/" + digest.hex();
  }

  [[nodiscard]] Result<std::pair<Digest, Document>> document(
      Digest const& digest, std::optional<std::uint64_t> size) const;
  [[nodiscard]] Result<Descriptor> entry(std::string const& name, Platform const& platform) const;

  std::string directory_;
  Index index_;
};

inline Result<Layout> Layout::open(std::string directory) {
  auto const mark_path = directory + "/oci-layout";
  auto const mark = read_file(mark_path, 64 * 1024);
  if (!mark) return fail(mark.error());
  auto const value = json::parse(*mark, mark_path);
  if (!value) return fail(value.error());
  auto const version = json::text(*value, "imageLayoutVersion");
  if (!version || !version->starts_with("1.")) {
    return fail(Errc::unsupported, mark_path + ": not an image layout of version 1");
  }
  auto const index_path = directory + "/index.json";
  auto const bytes = read_file(index_path, max_document_size);
  if (!bytes) return fail(bytes.error());
  auto document = parse_document(*bytes);
  if (!document) return fail(std::move(document).error(), index_path);
  auto* const index = std::get_if<Index>(&*document);
  if (index == nullptr) return fail(Errc::corrupt, index_path + ": not an index");
  return Layout(std::move(directory), std::move(*index));
}

inline Result<std::pair<Digest, Document>> Layout::document(
    Digest const& digest, std::optional<std::uint64_t> size) const {
  auto const path = path_of(digest);
  auto const bytes = read_file(path, max_document_size);
  if (!bytes) return fail(bytes.error());
  if (size && bytes->size() != *size) {
    return fail(Errc::mismatch, path + ": " + std::to_string(bytes->size()) +
                                    " bytes, expected are " + std::to_string(*size));
  }
  auto const computed = digest_of(*bytes, digest.algorithm());
  if (computed != digest) {
    return fail(Errc::digest_mismatch, path + ": its digest is " + computed.to_string());
  }
  auto document = parse_document(*bytes);
  if (!document) return fail(std::move(document).error(), path);
  return std::pair(digest, *std::move(document));
}

inline Result<Descriptor> Layout::entry(std::string const& name, Platform const& platform) const {
  if (name.empty()) {
    if (index_.manifests.size() == 1) return index_.manifests.front();
    auto chosen = choose_platform(index_, platform);
    if (!chosen) return fail(std::move(chosen).error(), directory_ + ": several images, no tag");
    return chosen;
  }
  auto const digest = Digest::parse(name);
  for (auto const& candidate : index_.manifests) {
    if (digest ? candidate.digest == *digest : candidate.annotation(ref_name) == name) {
      return candidate;
    }
  }
  std::string there;
  for (auto const& candidate : index_.manifests) {
    auto const tag = candidate.annotation(ref_name);
    if (tag) there += (there.empty() ? "" : ", ") + detail::quote(*tag);
  }
  return fail(Errc::not_found, directory_ + ": no image " + detail::quote(name) +
                                   (there.empty() ? "" : "; it has " + there));
}

inline Result<Image> Layout::resolve(std::string const& name, Platform const& platform) const {
  auto const start = entry(name, platform);
  if (!start) return fail(start.error());
  auto const fetch = [&](std::string const& target, std::optional<std::uint64_t> size) {
    auto const digest = Digest::parse(target);
    return document(*digest, size ? size : start->size);  // made by to_string(), so it parses
  };
  auto image = resolve_image(fetch, start->digest.to_string(), platform);
  if (!image) return fail(std::move(image).error(), directory_);
  if (!image->platform && start->platform) image->platform = start->platform->normalised();
  return image;
}

inline Result<Local> Layout::blob(Descriptor const& descriptor) const {
  auto const path = path_of(descriptor.digest);
  auto file = Local::open(path);
  if (!file) return file;
  if (file->size() != descriptor.size) {
    return fail(Errc::mismatch, path + ": " + std::to_string(file->size()) +
                                    " bytes, expected are " + std::to_string(descriptor.size));
  }
  return file;
}

}  // namespace erofs_oci
