// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a registry serves: the manifests, tags and blobs of an OCI image layout.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "process.hpp"

namespace mount_oci {

/// An OCI image layout directory, its index read once, its blobs when they are asked for.
///
/// @par Thread safety
/// All const members, from any thread.
class LayoutStore {
 public:
  /// A manifest or index.
  struct Manifest {
    std::string digest;
    std::string media_type;
    std::string body;
  };

  /// @error{an errno, oci-layout or index.json cannot be read}
  /// @error{Errc::corrupt, index.json is not an image index}
  [[nodiscard]] static Result<LayoutStore> open(std::string directory);

  /// The manifest of a tag or digest, or nothing.
  [[nodiscard]] std::optional<Manifest> manifest(std::string const& reference) const;

  /// The path of a blob, or nothing: also for a text that is no digest.
  [[nodiscard]] std::optional<std::string> blob_path(std::string const& digest) const;

  /// All tags, sorted.
  [[nodiscard]] std::vector<std::string> tags() const;

 private:
  struct Entry {
    std::string digest;
    std::string media_type;
  };

  explicit LayoutStore(std::string directory) : directory_(std::move(directory)) {}

  std::string directory_;
  std::map<std::string, Entry> by_tag_;
  std::map<std::string, std::string> media_types_;  ///< by digest, as index.json says
};

}  // namespace mount_oci
