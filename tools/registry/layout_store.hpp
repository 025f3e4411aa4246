// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a registry serves: the manifests, tags and blobs of an OCI image layout.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/oci/layout.hpp>

#include "process.hpp"

namespace mount_oci {

/// An OCI image layout by the names that a registry's clients use, as bytes: an erofs_oci::Layout
/// gives the parsed documents, but clients check the digests of what they get.
///
/// @par Thread safety
/// All members, from any thread.
class LayoutStore {
 public:
  /// A manifest or index.
  struct Manifest {
    std::string digest;
    std::string media_type;
    std::string body;
  };

  /// @error{as erofs_oci::Layout::open(), as it says}
  [[nodiscard]] static Result<LayoutStore> open(std::string directory);

  /// The manifest of a tag or digest, or nothing.
  [[nodiscard]] std::optional<Manifest> manifest(std::string const& reference) const;

  /// The path of a blob, or nothing: also for a text that is no digest.
  [[nodiscard]] std::optional<std::string> blob_path(std::string const& digest) const;

  /// All tags, sorted.
  [[nodiscard]] std::vector<std::string> tags() const;

  /// Keeps a blob in the layout; false if it is not what the digest names.
  /// @error{an errno, as write(2)}
  [[nodiscard]] Result<bool> add_blob(std::string const& digest, std::string_view bytes);

  /// Keeps a manifest in the layout, under a tag as long as this object lives.
  /// @return its digest
  /// @error{Errc::corrupt, it is none\, or has another digest}
  [[nodiscard]] Result<std::string> add_manifest(std::string const& reference,
                                                 std::string const& body);

  /// What refers to a manifest, of what add_manifest() has got.
  [[nodiscard]] std::vector<erofs_oci::Descriptor> referrers(std::string const& digest) const;

 private:
  /// What others may change at the same time.
  struct Names {
    std::mutex mutex;
    std::map<std::string, erofs_oci::Digest> by_tag;
    std::multimap<std::string, erofs_oci::Descriptor> by_subject;
  };

  explicit LayoutStore(erofs_oci::Layout layout) : layout_(std::move(layout)) {}

  erofs_oci::Layout layout_;
  std::unique_ptr<Names> names_ = std::make_unique<Names>();
};

}  // namespace mount_oci
