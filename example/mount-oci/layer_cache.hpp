// SPDX-License-Identifier: Apache-2.0
/// @file
/// LayerCache: what registries have sent, kept on disk for all mounts of a user.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <erofs_oci/cache/blob_cache.hpp>
#include <erofs_oci/cache/cached_blob.hpp>
#include <erofs_oci/cache/document_store.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/image/found_image.hpp>
#include <erofs_oci/oci/registry.hpp>

#include "mount_report.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// Where the cache is that the options name.
/// @error{Errc::not_found, `none`}
/// @error{as erofs_oci::IndexStore::default_path() says}
[[nodiscard]] Result<std::string> cache_path(ImageOptions const& options);

/// Keeps the layers of images that are found on disk, with their manifests. Opens the directory
/// when it is first needed: in a process that is confined. A directory that cannot be used is a
/// message, and nothing is kept.
///
/// @par Thread safety
/// All members, from any thread.
class LayerCache {
 public:
  /// Touches nothing.
  explicit LayerCache(ImageOptions const& options)
      : path_(cache_path(options).value_or("")),
        limit_(options.cache_size),
        named_(!options.cache_dir.empty()) {}

  /// Reads the layers of an image in a registry, and its configuration, through the cache.
  void keep(erofs_oci::FoundImage& found, Log const& log);

  /// The manifests and tags of a repository, as `pull` wants them. Borrows `log`.
  [[nodiscard]] erofs_oci::LocalDocuments documents(erofs_oci::Reference const& reference,
                                                    Pull pull, Log const& log);

  /// From now on, documents() asks for what a registry did not have, too.
  void ask_anew() noexcept { asks_anew_ = true; }

  /// Something refers to a manifest of that repository now.
  void note_referrer(erofs_oci::Reference const& repository, erofs_oci::Digest const& subject,
                     Log const& log);

  /// How many bytes are on disk of a layer that keep() has got last.
  [[nodiscard]] std::uint64_t kept(erofs_oci::FoundLayer const& layer);

  /// Whether these are all.
  [[nodiscard]] bool has_all(erofs_oci::FoundLayer const& layer);

  /// has_all() for each layer of an image.
  /// @error{Errc::not_found, of one it is not so}
  [[nodiscard]] Result<void> check_kept(erofs_oci::FoundImage const& found);

  /// What is kept of a blob, without asking anybody for the rest; empty: there is no cache.
  [[nodiscard]] std::optional<erofs_oci::AnySource> kept(erofs_oci::BlobName const& name,
                                                         Log const& log);

  /// What this process has read so far of what keep() has got. What is there is counted anew when
  /// something was read, and not more often than each five seconds.
  [[nodiscard]] DiskUse use();

  /// The blobs; null: there is no cache.
  [[nodiscard]] std::shared_ptr<erofs_oci::BlobCache const> blobs(Log const& log);

 private:
  struct Opened {
    std::shared_ptr<erofs_oci::BlobCache const> blobs;
    std::shared_ptr<erofs_oci::DocumentStore const> documents;
  };

  [[nodiscard]] Opened open(Log const& log);

  std::string path_;  ///< empty: there is none
  std::optional<std::uint64_t> limit_;
  bool named_;  ///< the user has named the directory
  std::atomic<bool> asks_anew_{false};
  std::mutex mutex_;
  bool tried_ = false;
  Opened opened_;
  std::vector<erofs_oci::CachedBlob> layers_;
  DiskUse use_;
  bool changed_ = false;  ///< since the layers' bytes on disk were counted
  std::chrono::steady_clock::time_point count_at_{};  ///< not before
};

/// The cache of the options, or a new one.
[[nodiscard]] std::shared_ptr<LayerCache> layer_cache_of(ImageOptions const& options);

}  // namespace mount_oci
