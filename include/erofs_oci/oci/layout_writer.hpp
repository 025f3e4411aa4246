// SPDX-License-Identifier: Apache-2.0
/// @file
/// LayoutWriter: puts blobs and manifests into an OCI image layout.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/oci/layout.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/oci/push.hpp>

namespace erofs_oci {

/// An image layout that is added to: what BasicPusher is for a registry. No link inside of the
/// layout is followed. Each file is whole or not there; `index.json` names what is there already.
/// Processes that write at the same time wait for each other, up to 10 s.
///
/// @par Thread safety
/// None.
class LayoutWriter {
 public:
  /// Opens the layout in a directory that is there, or makes it, with `index.json` and all.
  /// @error{an errno, as open(2) and mkdir(2)}
  /// @error{as Layout::open(), there is something else}
  [[nodiscard]] static Result<LayoutWriter> open(std::string directory);

  /// Puts a blob there, unless it is there.
  /// @return was_there or uploaded
  /// @error{Errc::unsupported, a digest other than SHA-256}
  /// @error{an errno, as write(2)}
  [[nodiscard]] Result<BlobPush> put_blob(Digest const& digest,
                                          std::span<std::byte const> bytes) const;

  /// Puts a manifest or an index there. `index.json` names it: by the tag, which nothing else has
  /// from then on, or without one.
  /// @error{as put_blob(), as there}
  [[nodiscard]] Result<void> put_manifest(std::string const& tag_or_digest,
                                          std::string_view media_type,
                                          std::string const& text) const;

  /// Puts a manifest there that refers to another one, which need not be there, so that
  /// Layout::referrers() finds it.
  /// @return what points to it
  /// @error{as put_blob(), as there}
  [[nodiscard]] Result<Descriptor> attach(Manifest const& artifact) const;

  /// What is there under a tag or digest.
  /// @error{as Layout::document(), as there}
  [[nodiscard]] Result<FoundDocument> document(std::string const& tag_or_digest) const;

 private:
  LayoutWriter(std::string directory, UniqueFd top, UniqueFd blobs)
      : directory_(std::move(directory)), top_(std::move(top)), blobs_(std::move(blobs)) {}

  [[nodiscard]] Result<void> name(Descriptor const& entry) const;

  std::string directory_;
  UniqueFd top_;
  UniqueFd blobs_;  // blobs/sha256
};

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/oci/detail/layout_writer_body.hpp>
#endif
