// SPDX-License-Identifier: Apache-2.0
/// @file
/// An inode of an image in FUSE's words: its number, its attributes, its place in a directory.
#pragma once

#include <cstdint>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/fuse/api.hpp>
#include <erofs_oci/fuse/reply.hpp>

namespace erofs_oci::fuse::detail {

/// What stat(2) says of an inode, as the kernel's EROFS says it.
[[nodiscard]] inline struct stat stat_of(erofs::Inode const& inode) {
  struct stat status{};
  auto const& r = inode.record;
  status.st_ino = inode.nid;
  status.st_mode = r.mode;
  status.st_nlink = r.links;
  status.st_uid = r.uid;
  status.st_gid = r.gid;
  auto const device = inode.device();
  status.st_rdev = makedev(device.major, device.minor);
  status.st_size = static_cast<off_t>(r.size);
  status.st_blksize = 4096;
  status.st_blocks = static_cast<blkcnt_t>(r.size / 512 + (r.size % 512 != 0 ? 1 : 0));
  status.st_mtim.tv_sec = inode.mtime.seconds;
  status.st_mtim.tv_nsec = static_cast<long>(inode.mtime.nanoseconds);
  status.st_ctim = status.st_atim = status.st_mtim;
  return status;
}

/// A place in a directory as the offset of readdir(3): where to go on, and 0 for the beginning.
/// Entries have fixed places in fixed blocks, so it means the same for ever.
struct DirectoryPlace {
  std::uint64_t block = 0;
  std::uint64_t entry = 0;  ///< in the block; a block of 64 KiB has less than 2^13

  [[nodiscard]] off_t offset() const noexcept {
    return static_cast<off_t>((block << 16 | entry) + 1);
  }
  [[nodiscard]] static DirectoryPlace of(off_t offset) noexcept {
    if (offset <= 0) return {};
    auto const value = static_cast<std::uint64_t>(offset) - 1;
    return {value >> 16, value & 0xffff};
  }
};

/// Between the image's numbers and FUSE's: there the root is 1 and 0 means none, so every other
/// node is the nid moved out of their way.
class Nodes {
 public:
  /// @param root_nid  of the image's root directory
  explicit Nodes(std::uint64_t root_nid) noexcept : root_(root_nid) {}

  [[nodiscard]] fuse_ino_t node_of(std::uint64_t nid) const noexcept {
    return nid == root_ ? FUSE_ROOT_ID : nid + 2;
  }
  [[nodiscard]] std::uint64_t nid_of(fuse_ino_t node) const noexcept {
    return node == FUSE_ROOT_ID ? root_ : node - 2;
  }

  /// What is said of an inode that was found under a name.
  [[nodiscard]] fuse_entry_param entry_of(erofs::Inode const& inode) const {
    fuse_entry_param entry{};
    entry.ino = node_of(inode.nid);
    entry.attr = stat_of(inode);
    entry.attr_timeout = entry.entry_timeout = for_ever;
    return entry;
  }

 private:
  std::uint64_t root_;
};

}  // namespace erofs_oci::fuse::detail
