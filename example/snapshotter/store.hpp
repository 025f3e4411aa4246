// SPDX-License-Identifier: Apache-2.0
/// @file
/// SnapshotStore: the table of snapshots, with the rules that containerd expects of it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>

#include "database.hpp"
#include "filter.hpp"
#include "snapshot.hpp"

namespace oci_snapshotter {

using erofs_oci::Error;
using erofs_oci::Result;

/// The label by which containerd says which layer it wants.
inline constexpr char const* reference_label = "containerd.io/snapshot.ref";

/// The name of the table's file in the root directory.
inline constexpr char const* metadata_name = "metadata.db";

/// Snapshots, and what is known of images and layers, in a file and in memory: reads never wait for
/// the disk, and a change is on the disk before the call ends. Does not touch directories or
/// mounts.
///
/// The codes of all errors that no disk causes are Refusals.
///
/// @par Thread safety
/// All members, from any thread.
class SnapshotStore {
 public:
  using Now = std::function<Time()>;

  /// @param now  the time of day
  /// @error{as Database::open(), as there; Errc::corrupt, also if the rows contradict each other}
  [[nodiscard]] static Result<std::unique_ptr<SnapshotStore>> open(std::string const& path,
                                                                   Now now = system_time);

  /// The system's time of day.
  [[nodiscard]] static Time system_time();

  /// @name Snapshots
  /// @{

  /// A number for a snapshot that is to be made.
  [[nodiscard]] std::uint64_t next_id();

  /// Adds an active snapshot or a view.
  /// @param id  from next_id()
  /// @error{already_exists, the name is taken; not_found, there is no such parent;
  /// invalid_argument, the parent is not committed, or there is no name}
  [[nodiscard]] Result<Snapshot> create(std::uint64_t id, std::string const& name,
                                        std::string const& parent, Kind kind, Labels labels);

  /// Makes the committed snapshot of a layer that is served, or finds the one that is there: of the
  /// same chain ID, by its label, and the same parent, whatever it is called.
  /// @param key       the call's; a new snapshot is called like it, with something behind
  /// @param manifest  of the image that has the layer at this place
  /// @error{not_found and invalid_argument, as create()}
  [[nodiscard]] Result<Snapshot> claim(std::string const& key, std::string const& parent,
                                       Labels labels, std::string const& manifest);

  /// The snapshot that claim() would find.
  [[nodiscard]] std::optional<Snapshot> claimed(std::string const& chain,
                                                std::string const& parent) const;

  /// Turns an active snapshot into a committed one of another name, with these labels.
  /// @error{not_found; already_exists, the name is taken; failed_precondition, it is not active}
  [[nodiscard]] Result<Snapshot> commit(std::string const& name, std::string const& key,
                                        Labels labels);

  /// Changes labels.
  /// @param paths  `labels`: all; `labels.NAME`: that one, which goes if `info` does not have it;
  ///               none: all
  /// @error{not_found; invalid_argument, another path}
  [[nodiscard]] Result<Info> update(Info const& info, std::span<std::string const> paths);

  /// @error{not_found; failed_precondition, other snapshots stand on it}
  [[nodiscard]] Result<Snapshot> remove(std::string const& name);

  /// @error{not_found}
  [[nodiscard]] Result<Snapshot> find(std::string const& name) const;

  /// A snapshot and all below it, from the top down.
  /// @error{not_found}
  [[nodiscard]] Result<std::vector<Snapshot>> lineage(std::string const& name) const;

  /// In the order of their names.
  [[nodiscard]] std::vector<Info> list(Filters const& filters) const;
  [[nodiscard]] std::vector<Snapshot> all() const;
  /// @}

  /// @name Images
  /// @{

  /// Keeps what is known of an image.
  [[nodiscard]] Result<void> remember(ImageFacts const& image);
  [[nodiscard]] std::optional<ImageFacts> image(std::string const& manifest) const;
  [[nodiscard]] std::vector<ImageFacts> images() const;

  /// Keeps what reading a layer has shown.
  [[nodiscard]] Result<void> note_diff_ids(std::span<LayerFacts const> layers);
  [[nodiscard]] std::optional<erofs_oci::Digest> diff_id(erofs_oci::Digest const& blob) const;

  /// Takes back that an image has the layers that it claims. Of its claims that no other image
  /// shares, those go that nothing stands on; the others stay without an image, so that nothing
  /// can be mounted for them.
  /// @param why  kept: the image is never served again
  [[nodiscard]] Result<void> refute(std::string const& manifest, std::string const& why);

  /// Why an image is not served, if it was refuted.
  [[nodiscard]] std::optional<std::string> refuted(std::string const& manifest) const;

  /// Forgets images that no snapshot needs, and layers that only they have.
  [[nodiscard]] Result<void> forget_unused_images();
  /// @}

 private:
  using Rows = std::map<std::string, Snapshot, std::less<>>;

  SnapshotStore(Database database, Now now)
      : database_(std::move(database)), now_(std::move(now)) {}

  [[nodiscard]] Result<void> load();
  [[nodiscard]] Result<void> load_snapshots();
  [[nodiscard]] Result<void> load_images();
  [[nodiscard]] Result<void> check_rows() const;
  [[nodiscard]] Result<std::size_t> depth_above(std::string const& parent) const;
  [[nodiscard]] bool has_children(std::string const& name) const;
  [[nodiscard]] Snapshot const* find_claim(std::string const& chain,
                                           std::string const& parent) const;
  [[nodiscard]] Result<void> insert(Snapshot const& snapshot);
  [[nodiscard]] Result<void> replace(Snapshot const& snapshot);
  [[nodiscard]] Result<void> erase(Snapshot const& snapshot);
  [[nodiscard]] Result<Snapshot> add(Snapshot snapshot);

  mutable std::shared_mutex rows_mutex_;  // of what follows; held for memory alone
  Rows rows_;
  std::map<std::string, ImageFacts> images_;
  std::map<std::string, std::string> refuted_;
  std::map<std::string, erofs_oci::Digest> diff_ids_;  // by the blob's digest

  std::mutex change_mutex_;  // one change at a time; it alone changes what rows_mutex_ guards
  Database database_;
  Now now_;
  std::uint64_t next_id_ = 1;
};

}  // namespace oci_snapshotter
