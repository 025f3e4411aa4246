// SPDX-License-Identifier: Apache-2.0
/// @file
/// Snapshot: one row of the snapshotter's table, and what containerd is told of it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <erofs_oci/digest/digest.hpp>

namespace oci_snapshotter {

using Labels = std::map<std::string, std::string>;

/// The value of a label; empty if there is none of that name.
[[nodiscard]] inline std::string label_of(Labels const& labels, std::string const& name) {
  auto const found = labels.find(name);
  return found == labels.end() ? std::string() : found->second;
}

using Time = std::chrono::sys_time<std::chrono::nanoseconds>;

/// By the numbers of containerd's protocol.
enum class Kind : std::uint8_t { view = 1, active = 2, committed = 3 };

/// What containerd is told of a snapshot.
struct Info {
  std::string name{};    ///< opaque; unique
  std::string parent{};  ///< a name; empty: none
  Kind kind = Kind::active;
  Time created{};
  Time updated{};
  Labels labels{};

  friend bool operator==(Info const&, Info const&) = default;
};

/// A snapshot.
struct Snapshot {
  std::uint64_t id = 0;  ///< never used again; names its directory
  Info info;
  std::size_t depth = 1;  ///< snapshots from the bottom up to this one, itself included
  /// Chain ID of a layer that is not unpacked but served; empty: an ordinary snapshot.
  std::string chain{};
  /// Manifests of the images that have this layer at this place, in the order in which they came;
  /// of an ordinary snapshot none.
  std::vector<std::string> manifests{};

  [[nodiscard]] bool is_served() const noexcept { return !chain.empty(); }

  friend bool operator==(Snapshot const&, Snapshot const&) = default;
};

/// A layer of an image.
struct LayerFacts {
  erofs_oci::Digest digest;   ///< of the blob
  erofs_oci::Digest diff_id;  ///< by the word of the image's configuration

  friend bool operator==(LayerFacts const&, LayerFacts const&) = default;
};

/// An image whose layers are served.
struct ImageFacts {
  std::string manifest;    ///< digest
  std::string repository;  ///< with its registry: "docker.io/library/debian"
  std::vector<LayerFacts> layers;

  /// What to ask a registry for.
  [[nodiscard]] std::string reference() const { return repository + "@" + manifest; }

  friend bool operator==(ImageFacts const&, ImageFacts const&) = default;
};

}  // namespace oci_snapshotter
