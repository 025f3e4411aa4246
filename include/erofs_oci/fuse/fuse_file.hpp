// SPDX-License-Identifier: Apache-2.0
/// @file
/// FuseFile: a source as one read-only file.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/fuse/api.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/fuse/reply.hpp>
#include <erofs_oci/fuse/server.hpp>
#include <erofs_oci/fuse/session.hpp>

namespace erofs_oci {

/// Whether the kernel keeps what it has read of the file.
///
/// Under a file-backed EROFS, which caches too, the kernel's cache holds data twice, and reads one
/// large file more slowly; but its read-ahead runs on from one small file of a tar to the next,
/// which reads a whole tree in two thirds of the time (bench/fuse.py). A loop device with
/// LoopCache::direct passes it by.
enum class FileCache : std::uint8_t {
  kernel,  ///< in its page cache, with read-ahead
  none,    ///< FuseFile gets each read, up to 1 MiB at once: for a reader with a cache of its own
};

/// How FuseFile serves.
struct FuseFileOptions {
  FuseServeOptions serve{};
  std::string name = "image";  ///< of the file
  FileCache cache = FileCache::kernel;
};

/// Serves a source as the one file of a file system, of the source's true size.
///
/// Only its owner may read it: options.serve.mount.access is taken as FuseAccess::owner.
///
/// @par Thread safety
/// run() and serve() one at a time.
template <RandomAccessSource Source>
class FuseFile {
 public:
  /// Owns the source.
  explicit FuseFile(Source source, FuseFileOptions options = {})
      : source_(std::move(source)), options_(std::move(options)) {
    options_.serve.mount.access = FuseAccess::owner;
  }

  FuseFile& operator=(FuseFile&&) = delete;  // and no copies: handlers point to it

  /// The source.
  [[nodiscard]] Source const& source() const noexcept { return source_; }

  /// Mounts at a directory, blocks and serves until it is unmounted or `stop` is requested.
  /// @param ready  called once, on this thread, when the file can be read
  /// @error{as mount_fuse() and FuseSession::run}
  [[nodiscard]] Result<FuseEnd> run(std::string const& directory, std::stop_token stop,
                                    FunctionRef<void(FuseSession&)> ready) {
    return fuse::detail::mount_and_serve(handlers(), options_.serve, directory, std::move(stop),
                                         ready);
  }

  /// Serves a connection that is mounted already, and does not unmount it at the end.
  /// @param on_stop  see FuseSession::run
  /// @error{as FuseSession::open and FuseSession::run}
  [[nodiscard]] Result<FuseEnd> serve(FuseConnection connection, std::stop_token stop,
                                      FunctionRef<void(FuseSession&)> ready,
                                      FunctionRef<void()> on_stop) {
    return fuse::detail::serve(handlers(), options_.serve, std::move(connection), std::move(stop),
                               ready, on_stop);
  }

 private:
  static constexpr fuse_ino_t file_node = 2;

  fuse::detail::Handlers handlers() { return {operations(), this, is_remote(source_)}; }

  static fuse_lowlevel_ops const& operations() {
    static fuse_lowlevel_ops const table = [] {
      fuse_lowlevel_ops ops{};
      ops.init = [](void*, fuse_conn_info* connection) { fuse::detail::want_caching(*connection); };
      ops.lookup = &FuseFile::lookup;
      ops.getattr = &FuseFile::getattr;
      ops.open = &FuseFile::open;
      ops.read = &FuseFile::read;
      ops.readdir = &FuseFile::readdir;
      ops.statfs = &FuseFile::statfs;
      return ops;
    }();
    return table;
  }

  static FuseFile const& self(fuse_req_t request) {
    return *static_cast<FuseFile const*>(::fuse_req_userdata(request));
  }

  struct stat attributes(fuse_ino_t node) const {
    struct stat status{};
    auto const is_file = node == file_node;
    status.st_ino = node;
    status.st_mode = is_file ? S_IFREG | 0400 : S_IFDIR | 0500;
    status.st_nlink = is_file ? 1 : 2;
    status.st_uid = ::geteuid();
    status.st_gid = ::getegid();
    status.st_size = is_file ? static_cast<off_t>(source_.size()) : 0;
    status.st_blocks = (status.st_size + 511) / 512;
    status.st_blksize = 4096;
    return status;
  }

  static void lookup(fuse_req_t request, fuse_ino_t parent, char const* name) noexcept {
    auto const& me = self(request);
    fuse_entry_param entry{};
    entry.attr_timeout = entry.entry_timeout = fuse::detail::for_ever;
    if (parent == FUSE_ROOT_ID && name == me.options_.name) {
      entry.ino = file_node;
      entry.attr = me.attributes(file_node);
    }
    ::fuse_reply_entry(request, &entry);
  }

  static void getattr(fuse_req_t request, fuse_ino_t node, fuse_file_info*) noexcept {
    auto const status = self(request).attributes(node);
    ::fuse_reply_attr(request, &status, fuse::detail::for_ever);
  }

  static void open(fuse_req_t request, fuse_ino_t, fuse_file_info* info) noexcept {
    auto const direct = self(request).options_.cache == FileCache::none;
    info->direct_io = direct ? 1 : 0;
    info->keep_cache = direct ? 0 : 1;
    info->noflush = 1;
    ::fuse_reply_open(request, info);
  }

  static void read(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset,
                   fuse_file_info*) noexcept {
    fuse::detail::handle(request, [&] {
      auto const& me = self(request);
      auto const at = static_cast<std::uint64_t>(offset);
      auto const out = fuse::detail::scratch(readable(me.source_.size(), at, size));
      auto const n = me.source_.read_at(at, out);
      if (!n) {
        auto const& serve = me.options_.serve;
        return fuse::detail::reply_failure(request, serve.on_failure, serve.leave,
                                           {"read", 0, {}, at, out.size(), n.error()});
      }
      fuse::detail::reply_bytes(request, out.first(*n));
    });
  }

  static void readdir(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset,
                      fuse_file_info*) noexcept {
    fuse::detail::handle(request, [&] {
      auto const& me = self(request);
      std::array<std::pair<char const*, fuse_ino_t>, 3> const entries{
          {{".", FUSE_ROOT_ID}, {"..", FUSE_ROOT_ID}, {me.options_.name.c_str(), file_node}}};
      auto const out = fuse::detail::scratch(size);
      auto* const text = reinterpret_cast<char*>(out.data());
      std::size_t used = 0;
      for (auto i = static_cast<std::size_t>(offset); i < entries.size(); ++i) {
        auto const status = me.attributes(entries[i].second);
        auto const n = ::fuse_add_direntry(request, text + used, size - used, entries[i].first,
                                           &status, static_cast<off_t>(i + 1));
        if (n > size - used) break;
        used += n;
      }
      fuse::detail::reply_bytes(request, out.first(used));
    });
  }

  static void statfs(fuse_req_t request, fuse_ino_t) noexcept {
    struct statvfs status{};
    status.f_bsize = status.f_frsize = 512;
    status.f_blocks = (self(request).source_.size() + 511) / 512;
    status.f_files = 2;
    status.f_namemax = 255;
    ::fuse_reply_statfs(request, &status);
  }

  Source source_;
  FuseFileOptions options_;
};

}  // namespace erofs_oci
