// SPDX-License-Identifier: Apache-2.0
/// @file
/// SnapshotDirectories: where the files of snapshots are that are not served.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>

#include <sys/types.h>

#include <erofs_oci/core/result.hpp>

namespace oci_snapshotter {

/// What a directory takes.
struct DiskUse {
  std::uint64_t bytes = 0;  ///< of blocks; a file with several names once
  std::uint64_t inodes = 0;
};

/// `ROOT/snapshots/ID/{fs,work}`; what is removed is in `ROOT/trash` until purge() has time for it.
///
/// @par Thread safety
/// All const members, from any thread; one ID by one thread at a time.
class SnapshotDirectories {
 public:
  /// Makes the directories below `root`, which must exist.
  /// @error{an errno, as mkdir(2)}
  [[nodiscard]] static erofs_oci::Result<SnapshotDirectories> open(std::string root);

  [[nodiscard]] std::string files(std::uint64_t id) const { return of(id) + "/fs"; }
  [[nodiscard]] std::string work(std::uint64_t id) const { return of(id) + "/work"; }

  /// Makes a snapshot's directories, the upper one 0755 and of that owner.
  /// @error{an errno, as mkdir(2); nothing stays}
  [[nodiscard]] erofs_oci::Result<void> make(std::uint64_t id, uid_t user, gid_t group) const;

  /// Puts a snapshot's directories aside, at once. What is not there is no error.
  /// @error{an errno, as rename(2)}
  [[nodiscard]] erofs_oci::Result<void> discard(std::uint64_t id) const;

  /// Puts all aside but those.
  /// @error{an errno, as readdir(3) and rename(2)}
  [[nodiscard]] erofs_oci::Result<void> discard_others(std::set<std::uint64_t> const& used) const;

  /// Removes what was put aside, but never what is mounted there, nor below.
  /// @error{EBUSY, a mount was found; the rest is gone}
  /// @error{an errno, as unlink(2)}
  [[nodiscard]] erofs_oci::Result<void> purge() const;

  /// What a snapshot's own files take; nothing for one that has no directory.
  /// @error{an errno, as fts_read(3)}
  [[nodiscard]] erofs_oci::Result<DiskUse> usage(std::uint64_t id) const;

 private:
  explicit SnapshotDirectories(std::string root) : root_(std::move(root)) {}

  [[nodiscard]] std::string of(std::uint64_t id) const {
    return root_ + "/snapshots/" + std::to_string(id);
  }

  std::string root_;
};

}  // namespace oci_snapshotter
