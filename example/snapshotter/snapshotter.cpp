// SPDX-License-Identifier: Apache-2.0
#include "snapshotter.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/posix/replace_file.hpp>

#include <mount_table.hpp>

#include "image_metrics.hpp"
#include "mount_view.hpp"
#include "refusal.hpp"
#include "stacks.hpp"

namespace oci_snapshotter {

using erofs_oci::Errc;
using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::UniqueFd;

namespace {

Result<UniqueFd> lock_root(std::string const& root) {
  auto const path = root + "/lock";
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return fail_errno(errno, path);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  if (errno != EWOULDBLOCK) return fail_errno(errno, path);
  return fail(make_error_code(std::errc::resource_unavailable_try_again),
              root + " is another running snapshotter's");
}

Result<void> make_directories(std::string const& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return fail(error, path);
  if (::chmod(path.c_str(), 0711) != 0) return fail_errno(errno, path);
  return {};
}

/// A table that is lost must not be taken for one that is empty: containerd goes on to name its
/// snapshots.
Result<void> check_table(std::string const& root) {
  std::error_code error;
  auto const snapshots = root + "/snapshots";
  if (std::filesystem::exists(root + "/" + metadata_name, error)) return {};
  if (!std::filesystem::exists(snapshots, error) || std::filesystem::is_empty(snapshots, error)) {
    return {};
  }
  return fail(Errc::corrupt,
              root + "/" + metadata_name + " is missing, but " + snapshots +
                  " has snapshots (to heal it, put the file back from a backup; or move all of " +
                  root +
                  " away, start the snapshotter, remove from containerd all images and containers "
                  "that use it, and pull the images again)");
}

/// Names the helper that asks for logins. There is no secret in it. What serves the mounts of an
/// earlier process may read it at any time.
Result<void> write_login_file(std::string const& path) {
  auto const text = erofs_oci::json::dump({{"credsStore", login_helper}});
  return erofs_oci::replace_file(
      path, 0600, [&](int fd) { return erofs_oci::write_full(fd, erofs_oci::as_bytes(text)); });
}

/// Advice to the administrator of a node on which the kernel cannot map an image's owners.
constexpr char const* without_remap_ids =
    "take `remap-ids` out of the plugin's capabilities in containerd's configuration, which then "
    "copies the image for the pod";

LazyPolicy::Options policy_options(LazyPolicy::Options options, std::string const& unseen) {
  if (!unseen.empty()) options.never_because = unseen;
  return options;
}

}  // namespace

Result<std::unique_ptr<Snapshotter>> Snapshotter::open(Config const& given, Say say) {
  EROFS_OCI_TRY(check_config(given));
  EROFS_OCI_TRY(make_directories(given.root));
  auto config = given;
  std::error_code error;
  config.root = std::filesystem::canonical(given.root, error).string();  // as mounts are recorded
  if (error) return fail(error, given.root);
  EROFS_OCI_TRY(check_config(config));
  EROFS_OCI_TRY_ASSIGN(auto lock, lock_root(config.root));
  if (!config.tool.login_address.empty()) {
    config.tool.login_file = config.root + "/auth.json";
    EROFS_OCI_TRY(write_login_file(config.tool.login_file));
  }
  EROFS_OCI_TRY(check_table(config.root));
  EROFS_OCI_TRY_ASSIGN(auto store, SnapshotStore::open(config.root + "/" + metadata_name));
  EROFS_OCI_TRY_ASSIGN(auto directories, SnapshotDirectories::open(config.root));
  EROFS_OCI_TRY(make_directories(config.root + "/mounts"));
  std::set<std::uint64_t> used;
  for (auto const& snapshot : store->all()) used.insert(snapshot.id);
  EROFS_OCI_TRY(directories.discard_others(used));  // what a crash has left
  std::string unseen;
  if (auto const seen = check_mounts_are_seen(config.root + "/seen"); !seen) {
    unseen = seen.error().message();
    say("warning: " + unseen +
        "; all images are unpacked, and those that were served "
        "stay unavailable, until it is started in process 1's mount namespace");
  }
  return std::unique_ptr<Snapshotter>(new Snapshotter(config, std::move(store),
                                                      std::move(directories), std::move(lock),
                                                      std::move(unseen), std::move(say)));
}

Snapshotter::Snapshotter(Config const& config, std::unique_ptr<SnapshotStore> store,
                         SnapshotDirectories directories, UniqueFd lock, std::string unseen,
                         Say say)
    : lock_(std::move(lock)),
      say_(std::move(say)),
      store_(std::move(store)),
      directories_(std::move(directories)),
      tool_(config.tool),
      unseen_(std::move(unseen)),
      policy_(policy_options(config.lazy, unseen_), tool_, *store_, say_),
      mounts_directory_(config.root + "/mounts"),
      mounts_({.directory = mounts_directory_, .unmount_after = config.unmount_after}, tool_,
              *store_, say_),
      tender_([this](std::stop_token const& stop) { tend(stop); }) {}

Snapshotter::~Snapshotter() = default;

// ---------------------------------------------------------------- making

/// The lower directories for what stands on `parent`: of ordinary snapshots down to the first that
/// is served, whose mount has all that is below.
Result<Snapshotter::Ground> Snapshotter::ground_of(std::string const& parent, Labels const& labels,
                                                   Patience const& patience) {
  Ground ground;
  std::vector<Snapshot> lineage;
  if (!parent.empty()) {
    EROFS_OCI_TRY_ASSIGN(lineage, store_->lineage(parent));
  }
  for (auto const& snapshot : lineage) {
    if (!snapshot.is_served()) {
      ground.lower.push_back(directories_.files(snapshot.id));
      continue;
    }
    if (!unseen_.empty()) return refuse(Refusal::unavailable, unseen_);
    EROFS_OCI_TRY_ASSIGN(ground.use, mounts_.acquire(snapshot, patience));
    ground.lower.push_back(ground.use->path());
    break;
  }
  EROFS_OCI_TRY(map_owners(ground, labels));
  return ground;
}

/// Root's if nothing is below.
Result<Snapshotter::Owner> Snapshotter::owner_of(Ground const& ground) {
  if (ground.lower.empty()) return Owner();
  struct stat about{};
  if (::stat(ground.lower[0].c_str(), &about) != 0) return fail_errno(errno, ground.lower[0]);
  return Owner{about.st_uid, about.st_gid};
}

/// What containerd has copied for a user namespace belongs to the mapped owners already, and is an
/// ordinary snapshot; it comes with the same labels as what is to be mapped.
Result<void> Snapshotter::map_owners(Ground& ground, Labels const& labels) {
  EROFS_OCI_TRY_ASSIGN(auto mapping, IdMapping::of(labels));
  if (!mapping) return {};
  auto const is_served = ground.use && ground.lower.size() == 1;
  if (!is_served && !ground.lower.empty()) {
    EROFS_OCI_TRY_ASSIGN(auto const owner, owner_of(ground));
    if (mapping->has_mapped(owner.user, owner.group)) return {};  // it is such a copy
  }
  if (ground.use) EROFS_OCI_TRY(prepare_to_map(ground));
  ground.mapping = *std::move(mapping);
  return {};
}

/// Containerd clones the directory that all lower directories are in. Whether it clones what is
/// mounted below as well depends on its version; where it does not, an empty directory takes the
/// place of an image, so that the image has to be that directory itself.
Result<void> Snapshotter::prepare_to_map(Ground& ground) {
  auto& image = ground.lower.back();
  EROFS_OCI_TRY_ASSIGN(auto const table, mount_oci::read_mount_table());
  if (is_unmappable(table, image)) {
    return refuse(
        Refusal::failed_precondition,
        "the image at " + image +
            " is mounted by FUSE, whose owners the kernel cannot map: have it mounted by "
            "the kernel's EROFS (`mount.attach = \"auto\"`, and a kernel that has it), or " +
            without_remap_ids);
  }
  if (ground.lower.size() > 1) {
    return refuse(Refusal::failed_precondition,
                  "the image at " + image +
                      " has unpacked layers above it, and containerd does not map the owners of "
                      "both: pull or build it so that all of it is served, or " +
                      without_remap_ids);
  }
  image += "/.";
  return {};
}

std::vector<Mount> Snapshotter::answer(Snapshot const& snapshot, Ground const& ground) const {
  return {mount_of({snapshot.info.kind, ground.lower, directories_.files(snapshot.id),
                    directories_.work(snapshot.id),
                    ground.mapping ? ground.mapping->mount_options() : std::vector<std::string>()},
                   overlay_options_)};
}

Result<std::vector<Mount>> Snapshotter::create(std::string const& key, std::string const& parent,
                                               Kind kind, Labels const& labels,
                                               Patience const& patience) {
  if (store_->find(key)) {
    return refuse(Refusal::already_exists, "snapshot `" + key + "` exists already");
  }
  if (!parent.empty()) {
    auto const below = store_->find(parent);
    if (!below) {
      return refuse(Refusal::not_found, "parent `" + parent + "` does not exist");
    }
    if (below->info.kind != Kind::committed) {
      return refuse(Refusal::invalid_argument, "parent `" + parent + "` is not committed");
    }
  }
  EROFS_OCI_TRY_ASSIGN(auto const ground, ground_of(parent, labels, patience));
  auto const id = store_->next_id();
  auto const has_files = kind == Kind::active || ground.lower.empty();
  if (has_files) {
    EROFS_OCI_TRY_ASSIGN(auto owner, owner_of(ground));
    // An overlay's upper directory is not mapped with the lower ones; a mounted directory is.
    if (ground.mapping && !ground.lower.empty()) {
      owner = {ground.mapping->user(owner.user), ground.mapping->group(owner.group)};
    }
    EROFS_OCI_TRY(directories_.make(id, owner.user, owner.group));
  }
  auto const made = store_->create(id, key, parent, kind, labels);
  if (!made) {
    // The row's error matters more than what is left, which the next start removes.
    if (has_files) static_cast<void>(directories_.discard(id));
    return fail(made.error());
  }
  return answer(*made, ground);
}

/// Whether the layer that the labels are of is there now without a download.
Result<bool> Snapshotter::claim(std::string const& key, std::string const& parent,
                                Labels const& labels, Patience const& patience) {
  auto const chain = label_of(labels, reference_label);
  if (chain.empty()) return false;
  std::size_t depth = 1;
  if (!parent.empty()) {
    auto const below = store_->find(parent);
    if (!below || below->info.kind != Kind::committed) return false;  // as create() will say
    depth = below->depth + 1;
  }
  auto const wanted = ImageLabels::of(labels);
  if (wanted) {
    auto const image = policy_.decide(*wanted, patience);
    if (image && LazyPolicy::fits(*image, depth, *wanted)) {
      std::scoped_lock const lock(images_mutex_);
      EROFS_OCI_TRY(store_->remember(*image));
      EROFS_OCI_TRY_ASSIGN(auto const made, store_->claim(key, parent, labels, wanted->manifest));
      if (made.is_served()) mounts_.prepare(*image);
      return true;
    }
  }
  // Another image's layer serves as well, if it is more than that image's word.
  auto const known = store_->claimed(chain, parent);
  return known && (!known->is_served() || (unseen_.empty() && mounts_.is_proved(*known)));
}

Result<std::vector<Mount>> Snapshotter::prepare(std::string const& key, std::string const& parent,
                                                Labels const& labels, Patience const& patience) {
  EROFS_OCI_TRY_ASSIGN(auto const is_there, claim(key, parent, labels, patience));
  if (is_there) {
    return refuse(Refusal::already_exists, "the layer of snapshot `" + key + "` is there already");
  }
  // An image's lowest layer, by what containerd calls the place to unpack it to.
  auto const is_extracted = parent.empty() && key.find("/extract-") != key.npos;
  if (is_extracted && !ImageLabels::of(labels)) {
    say_(key +
         ": left to containerd to download: its client does not say of which image the layer "
         "is, as ctr, and as CRI with disable_snapshot_annotations");
  }
  return create(key, parent, Kind::active, labels, patience);
}

Result<std::vector<Mount>> Snapshotter::view(std::string const& key, std::string const& parent,
                                             Labels const& labels, Patience const& patience) {
  return create(key, parent, Kind::view, labels, patience);
}

Result<std::vector<Mount>> Snapshotter::mounts(std::string const& key, Patience const& patience) {
  EROFS_OCI_TRY_ASSIGN(auto const snapshot, store_->find(key));
  if (snapshot.info.kind == Kind::committed) {
    return refuse(Refusal::failed_precondition,
                  "snapshot `" + key + "` is committed and cannot be mounted");
  }
  EROFS_OCI_TRY_ASSIGN(auto const ground,
                       ground_of(snapshot.info.parent, snapshot.info.labels, patience));
  return answer(snapshot, ground);
}

// ---------------------------------------------------------------- the rest

Result<void> Snapshotter::commit(std::string const& name, std::string const& key,
                                 Labels const& labels) {
  EROFS_OCI_TRY(store_->commit(name, key, labels));
  return {};
}

Result<void> Snapshotter::remove(std::string const& name) {
  EROFS_OCI_TRY_ASSIGN(auto const snapshot, store_->remove(name));
  // The row is gone, so that this is no error of the call; the next start finds what is left.
  if (auto const done = directories_.discard(snapshot.id); !done) say_(done.error().message());
  std::scoped_lock const lock(tend_mutex_);
  has_work_ = true;
  tend_now_.notify_one();
  return {};
}

Result<Info> Snapshotter::stat(std::string const& name) const {
  EROFS_OCI_TRY_ASSIGN(auto snapshot, store_->find(name));
  return std::move(snapshot.info);
}

Result<Info> Snapshotter::update(Info const& info, std::span<std::string const> paths) {
  return store_->update(info, paths);
}

std::vector<Info> Snapshotter::list(Filters const& filters) const {
  return store_->list(filters);
}

Result<DiskUse> Snapshotter::usage(std::string const& name) const {
  EROFS_OCI_TRY_ASSIGN(auto const snapshot, store_->find(name));
  return directories_.usage(snapshot.id);
}

Result<void> Snapshotter::cleanup() {
  std::scoped_lock const lock(purge_mutex_);
  return directories_.purge();
}

std::string Snapshotter::metrics() {
  return metrics_of({.snapshots = store_->all(),
                     .images = store_->images(),
                     .counts = mounts_.counts(),
                     .decisions = policy_.decisions(),
                     .mounts = tool_.status(),
                     .directory = mounts_directory_});
}

/// Does what no call waits for.
void Snapshotter::tend(std::stop_token const& stop) {
  while (!stop.stop_requested()) {
    auto const done = erofs_oci::without_throwing([&]() -> Result<void> {
      mounts_.clean(needed_stacks(*store_), stop);
      {
        std::scoped_lock const lock(images_mutex_);
        EROFS_OCI_TRY(store_->forget_unused_images());
      }
      return cleanup();
    });
    if (!done) say_("cleaning up: " + done.error().message());
    std::unique_lock lock(tend_mutex_);
    tend_now_.wait_for(lock, stop, std::chrono::seconds(5), [&] { return has_work_; });
    has_work_ = false;
  }
}

}  // namespace oci_snapshotter
