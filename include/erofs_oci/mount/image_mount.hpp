// SPDX-License-Identifier: Apache-2.0
/// @file
/// ImageMount: an image that is mounted for as long as this object lives. Needs a kernel and
/// privileges; BasicImageMount is the same over parts of a test's own.
#pragma once

#include <array>
#include <chrono>
#include <concepts>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <poll.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/host/block_device.hpp>
#include <erofs_oci/host/choose_here.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/host/detached_mount.hpp>
#include <erofs_oci/host/mount_point.hpp>
#include <erofs_oci/host/unmount.hpp>
#include <erofs_oci/mount/image_server.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/posix/wait.hpp>

namespace erofs_oci {

/// Serves an image and has it mounted: see ImageServer, which is one.
template <class S>
concept MountServer =
    requires(S const& server, OpenImage open, MountWay way, std::string const& target,
             ImageMountOptions const& options, MountDevice const& mount) {
      { S::start(open, way, target, options, mount) } -> std::same_as<Result<std::unique_ptr<S>>>;
      { server.place() } -> std::convertible_to<MountedAt>;
      { server.end_fd() } -> std::same_as<int>;
      { server.failure() } -> std::same_as<std::optional<Error>>;
    };

/// What a kernel does with mounts: see HostMounts, which is one. Each call changes all or nothing.
template <class K>
concept MountKernel =
    requires(K const& kernel, ImageMountOptions const& options, std::string const& path,
             MountedAt const& place, int mount, unsigned long flags, UnmountBusy busy) {
      { kernel.choose(options) } -> std::same_as<Result<MountWay>>;
      { kernel.locate(path) } -> std::same_as<Result<std::string>>;
      { kernel.open_device(path, options) } -> std::same_as<Result<UniqueFd>>;
      { kernel.open_root(place) } -> std::same_as<Result<UniqueFd>>;
      { kernel.clone(place, flags) } -> std::same_as<Result<UniqueFd>>;
      { kernel.check(mount, path) } -> std::same_as<Result<void>>;
      { kernel.attach(mount, path) } -> std::same_as<Result<MountedAt>>;
      { kernel.unmount(place, busy) } -> std::same_as<Result<void>>;
    };

/// The running kernel.
struct HostMounts {
  /// The first of the ways that this machine has.
  /// @error{as MountChoice::result(), as there}
  [[nodiscard]] Result<MountWay> choose(ImageMountOptions const& options) const {
    return choose_here(options.ways).result();
  }

  /// Where a directory to mount at is: absolute, without symbolic links.
  /// @error{as MountPoint::open(), as there}
  [[nodiscard]] Result<std::string> locate(std::string const& directory) const {
    return MountPoint::open(directory).map([](MountPoint const& place) { return place.path(); });
  }

  /// A mount of a new NBD device, attached nowhere.
  /// @error{as wait_for_block_device() and detached_erofs(), as there}
  [[nodiscard]] Result<UniqueFd> open_device(std::string const& device,
                                             ImageMountOptions const& options) const {
    EROFS_OCI_TRY(wait_for_block_device(device));
    auto const kib = static_cast<std::uint32_t>(options.readahead / 1024);
    // Without, reading in sequence takes more requests.
    if (auto const index = nbd_index_of_path(device)) {
      static_cast<void>(set_nbd_read_ahead(*index, kib));
    }
    return detached_erofs(device, options.flags, options.data);
  }

  /// The root of what is mounted there.
  /// @error{as open_place(), as there}
  [[nodiscard]] Result<UniqueFd> open_root(MountedAt const& place) const {
    return open_place(place.target);
  }

  /// Another mount of the same file system, attached nowhere.
  /// @error{as clone_of_mount(), as there}
  [[nodiscard]] Result<UniqueFd> clone(MountedAt const& place, unsigned long flags) const {
    return clone_of_mount(place.target, place.id, flags);
  }

  /// Whether files can be read.
  /// @error{as check_mounted(), as there}
  [[nodiscard]] Result<void> check(int root, std::string const& name) const {
    return check_mounted(root, name);
  }

  /// Attaches a mount.
  /// @error{as MountPoint::open()\, mount_id_of() and MountPoint::attach(), as there}
  [[nodiscard]] Result<MountedAt> attach(int mount, std::string const& directory) const {
    EROFS_OCI_TRY_ASSIGN(auto const place, MountPoint::open(directory));
    EROFS_OCI_TRY_ASSIGN(auto const id, mount_id_of(mount));
    EROFS_OCI_TRY(place.attach(mount));
    return MountedAt{place.path(), id};
  }

  /// Ends a mount; one that has ended already is no error.
  /// @error{as erofs_oci::unmount(), as there}
  [[nodiscard]] Result<void> unmount(MountedAt const& place, UnmountBusy busy) const {
    auto const done = erofs_oci::unmount(place.target, busy, "fusermount3", place.id);
    return done || is_mounted(place.id) ? done : Result<void>();
  }
};

/// One mount of an image, read-only. Mounts that share() has made of it are clones: they have one
/// server, one cache and one page cache together, and the server ends with the last of them. While
/// one is mounted, its files can be read, in whatever order the others end.
///
/// With ImageReaders::threads the image is served in this process. Then nothing survives this
/// process: killed, it leaves mounts whose reads fail, for umount(8) to remove. Nothing is recorded
/// on disk, no process is confined, and no other process can share; all of that is what mount-oci
/// adds.
///
/// The kernel's EROFS (all ways but MountWay::fuse_tree), share() and more than one mount point
/// need CAP_SYS_ADMIN in the first user namespace; fuse_tree of other users needs fusermount3.
/// SIGPIPE is ignored in this process from the first mount on.
///
/// @par Thread safety
/// One object: one thread at a time. Mounts that share a server: each on a thread of its own. Never
/// release a mount or read its files on a thread that the image's source waits for.
template <MountServer Server, MountKernel Kernel>
class BasicImageMount {
 public:
  /// Opens an image, serves it and mounts it at a directory. Blocks until its files can be read.
  /// @error{Errc::unsupported, none of the ways is open here; the text has the reasons}
  /// @error{as `open`\, MountPoint::open()\, mount(2) and the kernel's drivers, as they say.
  /// Nothing is mounted then\, and nothing is served}
  [[nodiscard]] static Result<BasicImageMount> open(OpenImage open, std::string const& directory,
                                                    ImageMountOptions const& options = {},
                                                    Kernel kernel = {}) {
    EROFS_OCI_TRY_ASSIGN(auto const way, kernel.choose(options));
    EROFS_OCI_TRY_ASSIGN(auto const target, kernel.locate(directory));
    auto const mount = [&](std::string const& device) -> Result<MountedAt> {
      EROFS_OCI_TRY_ASSIGN(auto const made, kernel.open_device(device, options), target);
      return kernel.attach(made.get(), target);
    };
    EROFS_OCI_TRY_ASSIGN(auto server, Server::start(std::move(open), way, target, options, mount));
    auto const place = server->place();
    BasicImageMount made({std::move(kernel), std::move(server), way}, place);
    EROFS_OCI_TRY(made.check());  // else `made` ends it
    return made;
  }

  BasicImageMount(BasicImageMount&& other) noexcept
      : shared_(std::exchange(other.shared_, nullptr)), place_(std::move(other.place_)) {}
  BasicImageMount& operator=(BasicImageMount&& other) noexcept {
    if (this == &other) return *this;
    end();
    shared_ = std::exchange(other.shared_, nullptr);
    place_ = std::move(other.place_);
    return *this;
  }

  /// Unmounts it, also while it is in use, and, if it was the server's last one, stops the server:
  /// who has files open gets errors then. Blocks.
  ~BasicImageMount() { end(); }

  /// Where it is mounted: absolute, without symbolic links.
  [[nodiscard]] std::string const& directory() const noexcept { return place_.target; }

  /// By which way; not once it is released.
  [[nodiscard]] MountWay way() const noexcept { return shared_->way; }

  /// Mounts the image at another directory, too.
  /// @param flags  mount(2) flags of that mount; read-only in any case
  /// @error{EPERM, without CAP_SYS_ADMIN}
  /// @error{EINVAL, this mount is released\, or is at its directory no more}
  /// @error{Errc::unavailable, the server has ended}
  /// @error{as detached_clone()\, MountPoint::open() and move_mount(2), as there. Nothing is
  /// mounted then}
  [[nodiscard]] Result<BasicImageMount> share(
      std::string const& directory, unsigned long flags = ImageMountOptions{}.flags) const {
    if (!shared_) return fail_errno(EINVAL, directory + ": the mount to share is released");
    auto const& kernel = shared_->kernel;
    EROFS_OCI_TRY_ASSIGN(auto const clone, kernel.clone(place_, flags), directory);
    EROFS_OCI_TRY(kernel.check(clone.get(), place_.target));
    // The clone holds the file system, so that the end of other mounts changes nothing from here.
    if (has_ended()) return fail(Errc::unavailable, directory + ": the image is served no more");
    EROFS_OCI_TRY_ASSIGN(auto place, kernel.attach(clone.get(), directory));
    return BasicImageMount(shared_, std::move(place));
  }

  /// Unmounts it, unless it is in use, and, if it was the server's last one, stops the server. One
  /// that has been unmounted by others is no error. Blocks. Without effect on a released one.
  /// @error{std::errc::device_or_resource_busy, it is in use: it stays as it is}
  /// @error{as erofs_oci::unmount(), it stays as it is}
  [[nodiscard]] Result<void> release() {
    if (!shared_) return {};
    EROFS_OCI_TRY(shared_->kernel.unmount(place_, UnmountBusy::refuse));
    shared_.reset();
    return {};
  }

  /// Takes it away from its directory, also while it is in use: who has files open is served on,
  /// until wait() tells that the last one has closed them, or this object ends.
  /// @error{as erofs_oci::unmount(), it stays as it is}
  [[nodiscard]] Result<void> detach() {
    if (!shared_) return {};
    return shared_->kernel.unmount(place_, UnmountBusy::detach);
  }

  /// Waits until nothing of the image is mounted or used any more, of this object or of those that
  /// share its server, or until the server has failed.
  /// @param other  a descriptor that ends the wait once it is readable, too; -1: none
  /// @return whether the server has ended
  [[nodiscard]] bool wait(int other = -1) const {
    if (!shared_) return true;
    std::array<pollfd, 2> fds{{{shared_->server->end_fd(), POLLIN, 0}, {other, POLLIN, 0}}};
    static_cast<void>(poll_until(fds, std::chrono::steady_clock::time_point::max()));
    return fds[0].revents != 0;
  }

  /// Why the server has ended; empty if it serves, or has ended because nothing was mounted any
  /// more.
  [[nodiscard]] std::optional<Error> failure() const {
    return shared_ ? shared_->server->failure() : std::nullopt;
  }

 private:
  /// What all mounts of one server have in common.
  struct Shared {
    Kernel kernel;
    std::unique_ptr<Server> server;
    MountWay way{};
  };

  BasicImageMount(Shared shared, MountedAt place)
      : shared_(std::make_shared<Shared>(std::move(shared))), place_(std::move(place)) {}
  BasicImageMount(std::shared_ptr<Shared> shared, MountedAt place) noexcept
      : shared_(std::move(shared)), place_(std::move(place)) {}

  [[nodiscard]] Result<void> check() const {
    EROFS_OCI_TRY_ASSIGN(auto const root, shared_->kernel.open_root(place_));
    return shared_->kernel.check(root.get(), place_.target);
  }

  [[nodiscard]] bool has_ended() const {
    pollfd fd{shared_->server->end_fd(), POLLIN, 0};
    return ::poll(&fd, 1, 0) > 0;
  }

  void end() noexcept {
    if (!shared_) return;
    // Plainly, else by detaching it. Nothing more can be done about any other error.
    if (!shared_->kernel.unmount(place_, UnmountBusy::refuse)) {
      static_cast<void>(shared_->kernel.unmount(place_, UnmountBusy::detach));
    }
    shared_.reset();
  }

  std::shared_ptr<Shared> shared_;  // null: released
  MountedAt place_;
};

/// One mount of an image by this machine's kernel.
using ImageMount = BasicImageMount<ImageServer, HostMounts>;

}  // namespace erofs_oci
