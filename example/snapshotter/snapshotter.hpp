// SPDX-License-Identifier: Apache-2.0
/// @file
/// Snapshotter: what containerd's snapshots service does, without the wire.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

#include "config.hpp"
#include "directories.hpp"
#include "filter.hpp"
#include "id_mapping.hpp"
#include "image_mounts.hpp"
#include "lazy_policy.hpp"
#include "mount_answer.hpp"
#include "mount_tool.hpp"
#include "snapshot.hpp"
#include "store.hpp"

namespace oci_snapshotter {

/// Snapshots of ordinary layers are directories for overlayfs. Layers of images that are served are
/// rows without files: what stands on such a chain gets one mount of the image's lowest layers as
/// its lowest directory. The two can stand on each other in any order.
///
/// @par Thread safety
/// All members, from any thread. A call that waits holds nothing that another one needs.
class Snapshotter {
 public:
  /// Starts whatever the state of images and registries; makes no request and mounts nothing.
  /// @error{std::errc::resource_unavailable_try_again, another process has the root directory}
  /// @error{Errc::corrupt, there are snapshots, but not the table of them}
  /// @error{as SnapshotStore::open(), as there}
  [[nodiscard]] static Result<std::unique_ptr<Snapshotter>> open(Config const& config, Say say);

  ~Snapshotter();

  /// @name The service
  /// Its rules and codes are those of SnapshotStore.
  /// @{

  /// @error{already_exists, also if the layer that the labels are of is served: then it is there}
  /// @error{as ImageMounts::acquire(), as there}
  [[nodiscard]] Result<std::vector<Mount>> prepare(std::string const& key,
                                                   std::string const& parent, Labels const& labels,
                                                   Patience const& patience);
  /// @error{as ImageMounts::acquire(), as there}
  [[nodiscard]] Result<std::vector<Mount>> view(std::string const& key, std::string const& parent,
                                                Labels const& labels, Patience const& patience);
  /// @error{failed_precondition, the snapshot is committed}
  /// @error{as ImageMounts::acquire(), as there}
  [[nodiscard]] Result<std::vector<Mount>> mounts(std::string const& key, Patience const& patience);
  [[nodiscard]] Result<void> commit(std::string const& name, std::string const& key,
                                    Labels const& labels);
  /// Its directories go later.
  [[nodiscard]] Result<void> remove(std::string const& name);
  [[nodiscard]] Result<Info> stat(std::string const& name) const;
  [[nodiscard]] Result<Info> update(Info const& info, std::span<std::string const> paths);
  [[nodiscard]] std::vector<Info> list(Filters const& filters) const;
  /// Of the snapshot itself; of one that is served nothing, since what is kept of it is
  /// mount-oci's.
  [[nodiscard]] Result<DiskUse> usage(std::string const& name) const;
  /// Removes the directories of what was removed.
  [[nodiscard]] Result<void> cleanup();
  /// @}

  /// Numbers for Prometheus. Asks mount-oci, and so takes its time.
  [[nodiscard]] std::string metrics();

 private:
  Snapshotter(Config const& config, std::unique_ptr<SnapshotStore> store,
              SnapshotDirectories directories, erofs_oci::UniqueFd lock, std::string unseen,
              Say say);

  /// What is below a snapshot, ready to be mounted.
  struct Ground {
    std::vector<std::string> lower;
    std::optional<ImageMounts::Use> use;
    std::optional<IdMapping> mapping;  // that containerd is to mount by
  };

  /// Whom the root directory of what is below belongs to, before it is mapped.
  struct Owner {
    uid_t user = 0;
    gid_t group = 0;
  };

  [[nodiscard]] Result<Ground> ground_of(std::string const& parent, Labels const& labels,
                                         Patience const& patience);
  [[nodiscard]] static Result<Owner> owner_of(Ground const& ground);
  [[nodiscard]] static Result<void> map_owners(Ground& ground, Labels const& labels);
  [[nodiscard]] static Result<void> prepare_to_map(Ground& ground);
  [[nodiscard]] Result<bool> claim(std::string const& key, std::string const& parent,
                                   Labels const& labels, Patience const& patience);
  [[nodiscard]] Result<std::vector<Mount>> create(std::string const& key, std::string const& parent,
                                                  Kind kind, Labels const& labels,
                                                  Patience const& patience);
  [[nodiscard]] std::vector<Mount> answer(Snapshot const& snapshot, Ground const& ground) const;
  void tend(std::stop_token const& stop);

  erofs_oci::UniqueFd lock_;  // of the root directory
  Say say_;
  std::unique_ptr<SnapshotStore> store_;
  SnapshotDirectories directories_;
  MountTool tool_;
  std::string const unseen_;  // why nothing is served here; empty: containerd sees what is mounted
  LazyPolicy policy_;
  std::string const mounts_directory_;
  ImageMounts mounts_;
  std::vector<std::string> overlay_options_ = overlay_options();

  std::mutex images_mutex_;  // between an image's row and the first claim that needs it
  std::mutex purge_mutex_;
  std::mutex tend_mutex_;
  std::condition_variable_any tend_now_;
  bool has_work_ = true;
  std::jthread tender_;  // last: it uses all of the others
};

}  // namespace oci_snapshotter
