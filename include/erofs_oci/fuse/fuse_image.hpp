// SPDX-License-Identifier: Apache-2.0
/// @file
/// FuseImage: a source mounted by the kernel's EROFS, with FuseFile between the two.
#pragma once

#include <cerrno>
#include <cstdlib>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include <sys/mount.h>
#include <unistd.h>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
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
  ~PrivateDirectory() {
    if (!path_.empty()) ::rmdir(path_.c_str());
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
/// Once that is done the file is nowhere: its mount is detached, and lives as long as EROFS holds it.
/// So umount(8) of the target ends both, and the server; and when the server dies, umount(8) is all
/// that is left to do. Needs privileges.
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
    auto const directory = detail::PrivateDirectory::make(options_.scratch);
    if (!directory) return fail(directory.error());
    auto const& mount = options_.file.serve.mount;
    auto connection = mount_fuse(directory->path(), mount);
    if (!connection) return fail(std::move(connection).error());
    auto hidden = false;
    auto const hide = [&] {
      if (std::exchange(hidden, true)) return;
      // It is ours and nobody else knows its name: detaching it cannot fail.
      static_cast<void>(unmount_fuse(directory->path(), UnmountBusy::detach, mount));
    };
    std::optional<AttachedFile> attached;
    std::optional<Error> failed;
    auto const begin = [&](FuseSession& session) {
      auto const& serve = options_.file.serve;
      if (serve.read_ahead_kib != 0) {  // without, reading in sequence takes more requests
        static_cast<void>(set_fuse_read_ahead(directory->path(), serve.read_ahead_kib));
      }
      auto done = attach_file(directory->path() + '/' + options_.file.name, target,
                              options_.attach);
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
  static void unmount(AttachedFile const& attached) {
    if (detach_file(attached)) return;
    // In use, or gone already; either way there is nothing more that could be done.
    static_cast<void>(detach_file(attached, UnmountBusy::detach));
  }

  FuseImageOptions options_;
  FuseFile<Source> file_;
};

}  // namespace erofs_oci
