// SPDX-License-Identifier: Apache-2.0
/// @file
/// FuseImage: a source mounted by the kernel's EROFS, with FuseFile between the two.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/fuse/attach_file.hpp>
#include <erofs_oci/fuse/fuse_file.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/fuse/session.hpp>

namespace erofs_oci {

/// How FuseImage mounts.
struct FuseImageOptions {
  FuseFileOptions file{};
  AttachOptions attach{};
  std::string scratch = "/run";  ///< where a private directory is made for a moment
  /// How much of the image's own blocks, which are its metadata, the kernel is told to read before
  /// it asks block by block, in bytes at most.
  std::uint64_t preload = 32 * 1024 * 1024;
};

namespace detail {

/// A directory of a name that nobody else has, for its owner only (0700).
class PrivateDirectory {
 public:
  /// @error{an errno, as mkdtemp(3)}
  [[nodiscard]] static Result<PrivateDirectory> make(std::string const& parent) {
    auto path = parent + "/erofs_oci-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) return fail_errno(errno, path);
    return PrivateDirectory(std::move(path));
  }

  PrivateDirectory(PrivateDirectory&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  PrivateDirectory& operator=(PrivateDirectory&&) = delete;
  ~PrivateDirectory() { remove(); }

  /// Once nothing is in it or mounted there.
  void remove() noexcept {
    if (!path_.empty()) ::rmdir(path_.c_str());
    path_.clear();
  }

  [[nodiscard]] std::string const& path() const noexcept { return path_; }

 private:
  explicit PrivateDirectory(std::string path) noexcept : path_(std::move(path)) {}

  std::string path_;
};

}  // namespace detail

/// Mounts a source that is an EROFS image: FuseFile serves it as a file, and the kernel's EROFS is
/// mounted from that file.
///
/// Once that is done the file is nowhere: its mount is detached, and lives as long as EROFS holds
/// it. So umount(8) of the target ends both, and the server; and when the server dies, umount(8) is
/// all that is left to do. Needs privileges.
///
/// @par Thread safety
/// run() once.
template <RandomAccessSource Source>
class FuseImage {
 public:
  /// Owns the source.
  explicit FuseImage(Source source, FuseImageOptions options = {})
      : options_(std::move(options)), file_(std::move(source), options_.file) {}

  /// Mounts at `target` and serves until that is unmounted, or `stop` is asked for: then it is
  /// unmounted, and its users get errors if it was in use.
  /// @param ready  called once, on this thread, when the target is mounted
  /// @error{as mount_fuse()\, FuseSession::run and attach_file()}
  [[nodiscard]] Result<FuseEnd> run(std::string const& target, std::stop_token stop,
                                    FunctionRef<void(AttachedFile const&, FuseSession&)> ready) {
    auto directory = detail::PrivateDirectory::make(options_.scratch);
    if (!directory) return fail(directory.error());
    auto const& mount = options_.file.serve.mount;
    auto connection = mount_fuse(directory->path(), mount);
    if (!connection) return fail(std::move(connection).error());
    auto hidden = false;
    auto const hide = [&] {
      if (std::exchange(hidden, true)) return;
      // It is ours and nobody else knows its name: detaching it cannot fail.
      static_cast<void>(unmount_fuse(directory->path(), UnmountBusy::detach, mount));
      directory->remove();  // now: a killed server leaves nothing behind
    };
    std::optional<AttachedFile> attached;
    std::optional<Error> failed;
    auto const begin = [&](FuseSession& session) {
      auto const& serve = options_.file.serve;
      if (serve.read_ahead_kib != 0) {  // without, reading in sequence takes more requests
        static_cast<void>(set_fuse_read_ahead(directory->path(), serve.read_ahead_kib));
      }
      auto const path = directory->path() + '/' + options_.file.name;
      auto done = attach_file(path, target, options_.attach);
      if (done) preload(done->device.empty() ? path : done->device);
      hide();
      if (!done) {
        failed = std::move(done).error();
        return;
      }
      attached = *std::move(done);
      ready(*attached, session);
    };
    auto end = file_.serve(*std::move(connection), std::move(stop), begin, [&] {
      hide();
      if (attached && options_.file.serve.on_stop == FuseStop::unmount) unmount(*attached);
    });
    hide();
    if (!end && attached) unmount(*attached);
    if (failed) return fail(*std::move(failed));
    return end;
  }

  /// The source.
  [[nodiscard]] Source const& source() const noexcept { return file_.source(); }

 private:
  /// Length of the part that holds no file data; 0 if that cannot be told.
  [[nodiscard]] std::uint64_t metadata_size() const {
    std::array<std::byte, erofs::Superblock::on_disk_size> raw{};
    if (!read_exact(file_.source(), erofs::superblock_offset, raw)) return 0;
    auto const superblock = erofs::Superblock::decode(raw);
    if (superblock.magic != erofs::magic || superblock.block_bits > 16) return 0;
    return checked_mul(superblock.blocks(), std::uint64_t{1} << superblock.block_bits).value_or(0);
  }

  /// Has the kernel read the metadata ahead, from what EROFS reads: it would ask for one page after
  /// the other. A hint; whether it is taken shows in time only.
  void preload(std::string const& path) const {
    auto const size = std::min({metadata_size(), options_.preload, file_.source().size()});
    auto const fd = size != 0 ? open_read(path) : Result<UniqueFd>();
    if (fd) ::posix_fadvise(fd->get(), 0, static_cast<off_t>(size), POSIX_FADV_WILLNEED);
  }

  static void unmount(AttachedFile const& attached) {
    if (detach_file(attached)) return;
    // In use, or gone already; either way there is nothing more that could be done.
    static_cast<void>(detach_file(attached, UnmountBusy::detach));
  }

  FuseImageOptions options_;
  FuseFile<Source> file_;
};

}  // namespace erofs_oci
