// SPDX-License-Identifier: Apache-2.0
/// @file
/// Layout: an OCI image layout directory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/oci/image.hpp>
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

  /// One manifest or index, by tag or digest.
  /// @param size  its bytes, if they are known; another size is an error
  /// @error{Errc::not_found, index.json has no such tag\, or there is no such file}
  /// @error{as resolve(), as there}
  [[nodiscard]] Result<FoundDocument> document(
      std::string const& tag_or_digest, std::optional<std::uint64_t> size = std::nullopt) const;

  /// The manifests in index.json that refer to one, which need not be there. Reads each of that
  /// type; one that cannot be read refers to nothing.
  [[nodiscard]] Result<std::vector<Descriptor>> referrers(Digest const& digest,
                                                          std::string_view artifact_type) const;

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

  static Result<Bytes> read_file(std::string const& path, std::size_t longest);

  [[nodiscard]] std::string path_of(Digest const& digest) const {
    return directory_ + "/blobs/" + std::string(to_string(digest.algorithm())) + "/" + digest.hex();
  }

  [[nodiscard]] Result<FoundDocument> document_at(Digest const& digest,
                                                  std::optional<std::uint64_t> size) const;
  [[nodiscard]] Result<Descriptor> entry(std::string const& name, Platform const& platform) const;

  std::string directory_;
  Index index_;
};

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/oci/detail/layout_body.hpp>
#endif
