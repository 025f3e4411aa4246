// SPDX-License-Identifier: Apache-2.0
/// @file
/// LazyPolicy: which images are served, and which are left to containerd to download and unpack.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "image_mounts.hpp"
#include "mount_tool.hpp"
#include "snapshot.hpp"
#include "store.hpp"

namespace oci_snapshotter {

/// The labels by which CRI says of which image a layer is.
struct ImageLabels {
  std::string chain;       ///< that the layer and those below it must have
  std::string repository;  ///< with its registry
  std::string manifest;    ///< digest
  std::string layer;       ///< digest of the blob

  /// Empty unless all are there and sound.
  [[nodiscard]] static std::optional<ImageLabels> of(Labels const& labels);
};

/// Decides for whole images: at the first layer that is not claimed, containerd fetches all above
/// it, too.
///
/// @par Thread safety
/// All members, from any thread.
class LazyPolicy {
 public:
  struct Options {
    std::string never_because{};              ///< why all images are unpacked; empty: they are not
    std::uint64_t min_size = 0;               ///< bytes of all layers; smaller images are unpacked
    std::chrono::milliseconds timeout{5000};  ///< for the registry's answer
    /// How long an image that is not served is left alone. Longer than a pull.
    std::chrono::seconds remember{600};
  };

  /// @param tool, store  borrowed
  LazyPolicy(Options options, MountTool const& tool, SnapshotStore const& store, Say say)
      : options_(options), tool_(tool), store_(store), say_(std::move(say)) {}

  /// The image, if its layers are to be served. Asks the registry at the image's first layer, and
  /// says so in one line.
  [[nodiscard]] std::optional<ImageFacts> decide(ImageLabels const& labels,
                                                 Patience const& patience);

  /// What was decided of images, those for which it has been forgotten left out.
  struct Decisions {
    std::map<std::string, bool> by_image{};  ///< REPOSITORY@DIGEST, and whether it is served
    std::uint64_t served = 0;                ///< how often, since the start
    std::uint64_t unpacked = 0;              ///< how often not
  };
  [[nodiscard]] Decisions decisions() const;

  /// Whether a layer of the image at this depth, 1 at the bottom, is the one that the labels are
  /// of.
  [[nodiscard]] static bool fits(ImageFacts const& image, std::size_t depth,
                                 ImageLabels const& labels);

 private:
  using Clock = std::chrono::steady_clock;
  struct Decision {
    bool made = false;
    std::string name{};  ///< REPOSITORY@DIGEST
    std::optional<ImageFacts> image{};
    Clock::time_point until = Clock::time_point::max();
  };

  /// @return  the image, or why not
  [[nodiscard]] tl::expected<ImageDescription, std::string> look(ImageLabels const& labels) const;

  Options const options_;
  MountTool const& tool_;
  SnapshotStore const& store_;
  Say const say_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Decision> decisions_;  // by the manifest
  std::uint64_t served_ = 0;
  std::uint64_t unpacked_ = 0;
};

}  // namespace oci_snapshotter
