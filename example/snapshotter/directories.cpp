// SPDX-License-Identifier: Apache-2.0
#include "directories.hpp"

#include <array>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <string_view>

#include <dirent.h>
#include <fcntl.h>
#include <fts.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/text.hpp>
#include <erofs_oci/host/mount_point.hpp>

namespace oci_snapshotter {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::Result;

namespace {

Result<void> make_directory(std::string const& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return fail_errno(errno, path);
  return {};
}

struct CloseWalk {
  void operator()(FTS* walk) const noexcept { ::fts_close(walk); }
};
using Walk = std::unique_ptr<FTS, CloseWalk>;

/// Without following links, and without going into what is mounted below.
Result<Walk> walk_of(std::string path) {
  std::array<char*, 2> paths{path.data(), nullptr};
  Walk walk(::fts_open(paths.data(), FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, nullptr));
  if (!walk) return fail_errno(errno, path);
  return walk;
}

/// Whether a directory's file system was mounted there, and not above. A bind mount of the same
/// file system has its device, but not its number.
Result<bool> is_mounted(std::string const& path, std::uint64_t mount) {
  EROFS_OCI_TRY_ASSIGN(auto const here, erofs_oci::mount_id_at(path));
  return here != mount;
}

/// Removes a tree of one mount.
Result<void> remove_tree(std::string const& path, std::uint64_t mount) {
  EROFS_OCI_TRY_ASSIGN(auto const walk, walk_of(path));
  Result<void> busy;
  errno = 0;
  while (auto* const entry = ::fts_read(walk.get())) {
    std::string const name = entry->fts_path;
    switch (entry->fts_info) {
      case FTS_D: {
        EROFS_OCI_TRY_ASSIGN(auto const mounted, is_mounted(name, mount));
        if (!mounted) break;
        ::fts_set(walk.get(), entry, FTS_SKIP);
        busy = fail_errno(EBUSY, name + ": something is mounted there");
        break;
      }
      case FTS_DP:
        if (::rmdir(name.c_str()) != 0 && busy) return fail_errno(errno, name);
        break;
      case FTS_DNR:
      case FTS_ERR:
      case FTS_NS: return fail_errno(entry->fts_errno, name);
      default:
        if (::unlink(name.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, name);
    }
    errno = 0;
  }
  if (errno != 0) return fail_errno(errno, path);
  return busy;
}

}  // namespace

Result<SnapshotDirectories> SnapshotDirectories::open(std::string root) {
  EROFS_OCI_TRY(make_directory(root + "/snapshots", 0700));
  EROFS_OCI_TRY(make_directory(root + "/trash", 0700));
  return SnapshotDirectories(std::move(root));
}

Result<void> SnapshotDirectories::make(std::uint64_t id, uid_t user, gid_t group) const {
  auto const make_all = [&]() -> Result<void> {
    if (::mkdir(of(id).c_str(), 0711) != 0) return fail_errno(errno, of(id));
    for (auto const& [path, mode] : {std::pair{files(id), 0755U}, std::pair{work(id), 0711U}}) {
      if (::mkdir(path.c_str(), 0700) != 0) return fail_errno(errno, path);
      if (::chmod(path.c_str(), mode) != 0) return fail_errno(errno, path);  // whatever the umask
    }
    if (::chown(files(id).c_str(), user, group) != 0) return fail_errno(errno, files(id));
    return {};
  };
  auto made = make_all();
  if (!made) static_cast<void>(discard(id));  // the first error is the one that matters
  return made;
}

Result<void> SnapshotDirectories::discard(std::uint64_t id) const {
  auto const aside = root_ + "/trash/" + std::to_string(id);
  if (::rename(of(id).c_str(), aside.c_str()) == 0 || errno == ENOENT) return {};
  return fail_errno(errno, of(id));
}

Result<void> SnapshotDirectories::discard_others(std::set<std::uint64_t> const& used) const {
  std::error_code error;
  std::filesystem::directory_iterator entries(root_ + "/snapshots", error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    auto const id = erofs_oci::whole_number<std::uint64_t>(entries->path().filename().string());
    if (id && !used.contains(*id)) EROFS_OCI_TRY(discard(*id));
  }
  if (error) return fail(error, root_ + "/snapshots");
  return {};
}

Result<void> SnapshotDirectories::purge() const {
  auto const trash = root_ + "/trash";
  EROFS_OCI_TRY_ASSIGN(auto const mount, erofs_oci::mount_id_at(trash));
  std::error_code error;
  Result<void> first;
  std::filesystem::directory_iterator entries(trash, error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    auto done = remove_tree(entries->path().string(), mount);
    if (!done && first) first = std::move(done);
  }
  if (error) return fail(error, trash);
  return first;
}

Result<DiskUse> SnapshotDirectories::usage(std::uint64_t id) const {
  DiskUse use;
  struct stat about{};
  if (::lstat(files(id).c_str(), &about) != 0) {
    if (errno == ENOENT) return use;
    return fail_errno(errno, files(id));
  }
  EROFS_OCI_TRY_ASSIGN(auto const walk, walk_of(files(id)));
  std::set<ino_t> several_names;
  errno = 0;
  while (auto* const entry = ::fts_read(walk.get())) {
    auto const kind = entry->fts_info;
    // What vanishes meanwhile, a container that runs has removed.
    auto const gone = (kind == FTS_NS || kind == FTS_DNR || kind == FTS_ERR);
    if (gone && entry->fts_errno != ENOENT) return fail_errno(entry->fts_errno, entry->fts_path);
    if (!gone && kind != FTS_DP) {
      auto const& status = *entry->fts_statp;
      auto const counts = status.st_nlink < 2 || S_ISDIR(status.st_mode) ||
                          several_names.insert(status.st_ino).second;
      if (counts) {
        ++use.inodes;
        use.bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
      }
    }
    errno = 0;
  }
  if (errno != 0) return fail_errno(errno, files(id));
  return use;
}

}  // namespace oci_snapshotter
