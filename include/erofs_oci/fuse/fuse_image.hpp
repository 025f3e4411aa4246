// SPDX-License-Identifier: Apache-2.0
/// @file
/// FuseImage: mounts a source with the kernel's EROFS, by FuseFile.
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
#include <erofs_oci/fuse/fuse_file.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/fuse/session.hpp>
#include <erofs_oci/host/attach_file.hpp>
#include <erofs_oci/host/verity_device.hpp>
#include <erofs_oci/posix/temporary_directory.hpp>

namespace erofs_oci {

/// How FuseImage mounts.
struct FuseImageOptions {
  FuseFileOptions file{};
  AttachOptions attach{};
  std::string scratch = "/run";  ///< where a private directory is made while mounting
  /// Most bytes of the image's metadata that the kernel is asked to read ahead when it is mounted.
  std::uint64_t preload = 32 * 1024 * 1024;
};

/// The two mounts of FuseImage: of /dev/fuse at a private directory, and of the kernel's EROFS at
/// the target, from the one file that is there. Needs privileges, and does not read the image: a
/// process that serves the connection of connect() need have none.
///
/// Once EROFS has the file open, or with this object, the private mount is detached, and lives as
/// long as EROFS holds it.
class FuseImageMount {
 public:
  explicit FuseImageMount(FuseImageOptions options) : options_(std::move(options)) {}
  FuseImageMount(FuseImageMount const&) = delete;
  FuseImageMount& operator=(FuseImageMount const&) = delete;
  ~FuseImageMount() { hide(); }

  /// Mounts /dev/fuse, for FuseFile to serve.
  /// @error{as mount_fuse()\, and mkdtemp(3)}
  [[nodiscard]] Result<FuseConnection> connect() {
    EROFS_OCI_TRY_ASSIGN(auto directory,
                         TemporaryDirectory::make(options_.scratch + "/erofs_oci-"));
    EROFS_OCI_TRY_ASSIGN(auto connection, mount_fuse(directory.path(), options_.file.serve.mount));
    directory_.emplace(std::move(directory));
    return connection;
  }

  /// Mounts the file at `target`, while another thread or process serves it.
  /// @param metadata  bytes at the image's front that the kernel is asked to read ahead, since
  ///                  EROFS would read one page after the other; at most FuseImageOptions::preload
  ///                  count
  /// @param verity    as AttachOptions::verity
  /// @error{as attach_file(), as there: the connection ends}
  [[nodiscard]] Result<AttachedFile> attach(std::string const& target, std::uint64_t metadata,
                                            std::optional<VerityTable> const& verity = {}) {
    if (!directory_) return fail_errno(ENOTCONN, target);
    auto const& serve = options_.file.serve;
    if (serve.read_ahead_kib != 0) {  // without, reading in sequence takes more requests
      static_cast<void>(set_fuse_read_ahead(directory_->path(), serve.read_ahead_kib));
    }
    auto const path = directory_->path() + '/' + options_.file.name;
    auto how = options_.attach;
    if (verity) how.verity = verity;
    auto attached = attach_file(path, target, how);
    if (attached) preload(attached->device.empty() ? path : attached->device, metadata);
    hide();
    return attached;
  }

  /// Detaches the private mount, unless that has been done.
  void hide() noexcept {
    if (!directory_) return;
    // No other process knows the directory's name: detaching cannot fail.
    auto const& helper = options_.file.serve.mount.helper;
    static_cast<void>(unmount(directory_->path(), UnmountBusy::detach, helper));
    directory_.reset();  // removed now: a killed server leaves nothing behind
  }

 private:
  /// Only a hint.
  void preload(std::string const& path, std::uint64_t size) const {
    auto const fd = size != 0 ? open_read(path) : Result<UniqueFd>();
    auto const length = static_cast<off_t>(std::min(size, options_.preload));
    if (fd) ::posix_fadvise(fd->get(), 0, length, POSIX_FADV_WILLNEED);
  }

  FuseImageOptions options_;
  std::optional<TemporaryDirectory> directory_;
};

/// Bytes at the front of an EROFS image that hold no file's data; 0 if they are not known.
template <RandomAccessSource Source>
[[nodiscard]] std::uint64_t erofs_metadata_size(Source const& image) {
  std::array<std::byte, erofs::Superblock::on_disk_size> raw{};
  if (!read_exact(image, erofs::superblock_offset, raw)) return 0;
  auto const superblock = erofs::Superblock::decode(raw);
  if (superblock.magic != erofs::magic || superblock.block_bits > 16) return 0;
  auto const size = checked_mul(superblock.blocks(), std::uint64_t{1} << superblock.block_bits);
  return std::min(size.value_or(0), image.size());
}

/// Mounts a source that is an EROFS image: FuseFile serves it as a file, and the kernel's EROFS is
/// mounted from that file.
///
/// umount(8) of the target ends both mounts and this server, also after this server's death. Needs
/// privileges.
///
/// @par Thread safety
/// run() once.
template <RandomAccessSource Source>
class FuseImage {
 public:
  /// Owns the source.
  explicit FuseImage(Source source, FuseImageOptions options = {})
      : options_(std::move(options)), file_(std::move(source), options_.file) {}

  /// Mounts at `target`, blocks and serves until that is unmounted. If `stop` is requested,
  /// unmounts it; its users get errors if it was in use.
  /// @param ready  called once, on this thread, when the target is mounted
  /// @error{as mount_fuse()\, FuseSession::run and attach_file()}
  [[nodiscard]] Result<FuseEnd> run(std::string const& target, std::stop_token stop,
                                    FunctionRef<void(AttachedFile const&, FuseSession&)> ready) {
    FuseImageMount mount(options_);
    EROFS_OCI_TRY_ASSIGN(auto connection, mount.connect());
    std::optional<AttachedFile> attached;
    std::optional<Error> failed;
    auto const begin = [&](FuseSession& session) {
      auto done = mount.attach(target, erofs_metadata_size(file_.source()));
      if (!done) {
        failed = std::move(done).error();
        return;
      }
      attached = *std::move(done);
      ready(*attached, session);
    };
    auto end = file_.serve(std::move(connection), std::move(stop), begin, [&] {
      mount.hide();
      if (attached && options_.file.serve.on_stop == FuseStop::unmount) detach(*attached);
    });
    if (!end && attached) detach(*attached);
    if (failed) return fail(*std::move(failed));
    return end;
  }

  /// The source.
  [[nodiscard]] Source const& source() const noexcept { return file_.source(); }

 private:
  static void detach(AttachedFile const& attached) {
    if (detach_file(attached)) return;
    // In use, or gone already; either way there is nothing more that could be done.
    static_cast<void>(detach_file(attached, UnmountBusy::detach));
  }

  FuseImageOptions options_;
  FuseFile<Source> file_;
};

}  // namespace erofs_oci
