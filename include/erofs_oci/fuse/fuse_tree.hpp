// SPDX-License-Identifier: Apache-2.0
/// @file
/// FuseTree: serves the files of an EROFS image where the kernel's EROFS is not available.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/directory.hpp>
#include <erofs_oci/erofs/file_map.hpp>
#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/fuse/api.hpp>
#include <erofs_oci/fuse/listing.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/fuse/node.hpp>
#include <erofs_oci/fuse/reply.hpp>
#include <erofs_oci/fuse/server.hpp>
#include <erofs_oci/fuse/session.hpp>

namespace erofs_oci {

/// Serves the files of an image as a read-only file system.
///
/// It keeps no state about what the kernel knows: node numbers are computed from the image's, so
/// that a server can take over a connection without any state of the last one. Inode numbers are
/// the image's nids, as the kernel's EROFS shows them. The kernel caches everything for ever, names
/// that do not exist included, and neither open(2) nor close(2) costs a request.
///
/// FUSE passthrough (Linux 6.9), by which the kernel would read a cached file itself, is left out:
/// it needs a newer libfuse than 3.14 and privileges, and files of a layer lie inside a tar.
///
/// @par Thread safety
/// run() and serve() one at a time; const members from any thread.
template <RandomAccessSource Source>
class FuseTree {
 public:
  /// Owns the reader.
  explicit FuseTree(erofs::Reader<Source> reader, FuseServeOptions options = {})
      : reader_(std::move(reader)), options_(std::move(options)) {}

  FuseTree& operator=(FuseTree&&) = delete;  // and no copies: handlers point to it

  /// The image.
  [[nodiscard]] erofs::Reader<Source> const& reader() const noexcept { return reader_; }

  /// Mounts at a directory, blocks and serves until it is unmounted or `stop` is requested.
  /// @param ready  called once, on this thread, when the files can be read
  /// @error{as mount_fuse() and FuseSession::run}
  [[nodiscard]] Result<FuseEnd> run(std::string const& directory, std::stop_token stop,
                                    FunctionRef<void(FuseSession&)> ready) {
    return fuse::detail::mount_and_serve(handlers(), options_, directory, std::move(stop), ready);
  }

  /// Serves a connection that is mounted already, and does not unmount it at the end.
  /// @param on_stop  see FuseSession::run
  /// @error{as FuseSession::open and FuseSession::run}
  [[nodiscard]] Result<FuseEnd> serve(FuseConnection connection, std::stop_token stop,
                                      FunctionRef<void(FuseSession&)> ready,
                                      FunctionRef<void()> on_stop) {
    return fuse::detail::serve(handlers(), options_, std::move(connection), std::move(stop), ready,
                               on_stop);
  }

  /// The first path of an inode, for messages: looks at the whole tree. Empty if none is found.
  [[nodiscard]] std::string path_of(std::uint64_t nid) const {
    std::string path;
    auto const walked = erofs::walk(reader_, [&](erofs::Visit const& visit) {
      if (visit.nid != nid) return erofs::Step::enter;
      path = visit.path;
      return erofs::Step::stop;
    });
    if (!walked) path.clear();
    return path;
  }

 private:
  using Inode = erofs::Inode;
  using Listing = fuse::detail::Listing<Source>;

  fuse::detail::Handlers handlers() {
    return {operations(), this, is_remote(reader_.frame().image())};
  }

  static fuse_lowlevel_ops const& operations() {
    static fuse_lowlevel_ops const table = [] {
      fuse_lowlevel_ops ops{};
      ops.init = &FuseTree::init;
      ops.lookup = &FuseTree::lookup;
      ops.getattr = &FuseTree::getattr;
      ops.readlink = &FuseTree::readlink;
      ops.open = &FuseTree::open;
      ops.read = &FuseTree::read;
      ops.lseek = &FuseTree::lseek;
      ops.opendir = &FuseTree::opendir;
      ops.readdir = &FuseTree::list<&Listing::add>;
      ops.readdirplus = &FuseTree::list<&Listing::add_plus>;
      ops.statfs = &FuseTree::statfs;
      ops.getxattr = &FuseTree::getxattr;
      ops.listxattr = &FuseTree::listxattr;
      return ops;
    }();
    return table;
  }

  static FuseTree& self(fuse_req_t request) {
    return *static_cast<FuseTree*>(::fuse_req_userdata(request));
  }

  [[nodiscard]] fuse::detail::Nodes nodes() const noexcept {
    return fuse::detail::Nodes(reader_.superblock().root());
  }

  static void refuse(fuse_req_t request, int number) noexcept { ::fuse_reply_err(request, number); }

  static void reply_failure(fuse_req_t request, FuseFailure const& failure) {
    auto const& options = self(request).options_;
    fuse::detail::reply_failure(request, options.on_failure, options.leave, failure);
  }

  /// Runs `handler(tree, inode)` for the inode of a node.
  template <class F>
  static void with_inode(fuse_req_t request, std::string_view operation, fuse_ino_t node,
                         F const& handler) noexcept {
    fuse::detail::handle(request, [&] {
      auto const& me = self(request);
      auto const nid = me.nodes().nid_of(node);
      auto const inode = me.reader_.inode(nid);
      if (!inode) return reply_failure(request, {operation, nid, {}, 0, 0, inode.error()});
      handler(me, *inode);
    });
  }

  static void init(void* user, fuse_conn_info* connection) noexcept {
    auto& me = *static_cast<FuseTree*>(user);
    fuse::detail::want_caching(*connection);
    fuse::detail::want(*connection, FUSE_CAP_EXPORT_SUPPORT);
    if (erofs_oci::detail::for_everyone(me.options_.mount.access)) {
      fuse::detail::want(*connection, FUSE_CAP_POSIX_ACL);  // which also has modes looked at
    }
    me.no_open_ = (connection->capable & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
    me.no_opendir_ = (connection->capable & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
  }

  static void lookup(fuse_req_t request, fuse_ino_t parent, char const* raw_name) noexcept {
    with_inode(request, "lookup", parent, [&](FuseTree const& me, Inode const& directory) {
      auto const name = std::string_view(raw_name);
      if (name == ".") {  // of a file handle, and also of what is no directory
        auto const entry = me.nodes().entry_of(directory);
        return static_cast<void>(::fuse_reply_entry(request, &entry));
      }
      if (!directory.is_directory()) return refuse(request, ENOTDIR);
      if (name.size() > erofs::max_name_length) return refuse(request, ENAMETOOLONG);
      auto const failed = [&](Error const& error) {
        reply_failure(request, {"lookup", directory.nid, name, 0, 0, error});
      };
      auto const found = me.reader_.lookup(directory, name);
      if (!found) return failed(found.error());
      fuse_entry_param entry{};
      entry.entry_timeout = fuse::detail::for_ever;  // of a name that does not exist, too
      if (*found) {
        auto const inode = me.reader_.inode((*found)->first);
        if (!inode) return failed(inode.error());
        entry = me.nodes().entry_of(*inode);
      }
      ::fuse_reply_entry(request, &entry);
    });
  }

  static void getattr(fuse_req_t request, fuse_ino_t node, fuse_file_info*) noexcept {
    with_inode(request, "getattr", node, [&](FuseTree const&, Inode const& inode) {
      auto const status = fuse::detail::stat_of(inode);
      ::fuse_reply_attr(request, &status, fuse::detail::for_ever);
    });
  }

  static void readlink(fuse_req_t request, fuse_ino_t node) noexcept {
    with_inode(request, "readlink", node, [&](FuseTree const& me, Inode const& inode) {
      if (!inode.is_symlink()) return refuse(request, EINVAL);
      auto const target = me.reader_.read_link(inode);
      if (!target) return reply_failure(request, {"readlink", inode.nid, {}, 0, 0, target.error()});
      fuse::detail::reply_bytes(request, as_bytes(*target));
    });
  }

  static void open(fuse_req_t request, fuse_ino_t, fuse_file_info* info) noexcept {
    // After this it is never asked again, and the cache is kept.
    if (self(request).no_open_) return refuse(request, ENOSYS);
    info->keep_cache = 1;
    info->noflush = 1;
    ::fuse_reply_open(request, info);
  }

  static void opendir(fuse_req_t request, fuse_ino_t, fuse_file_info* info) noexcept {
    if (self(request).no_opendir_) return refuse(request, ENOSYS);
    info->keep_cache = 1;
    info->cache_readdir = 1;
    ::fuse_reply_open(request, info);
  }

  static void read(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t offset,
                   fuse_file_info*) noexcept {
    with_inode(request, "read", node, [&](FuseTree const& me, Inode const& inode) {
      auto const at = static_cast<std::uint64_t>(offset);
      auto const out = fuse::detail::scratch(readable(inode.size(), at, size));
      auto const n = me.reader_.read(inode, at, out);
      if (!n) {
        return reply_failure(request, {"read", inode.nid, {}, at, out.size(), n.error()});
      }
      fuse::detail::reply_bytes(request, out.first(*n));
    });
  }

  /// SEEK_DATA and SEEK_HOLE; the kernel does the rest itself.
  static void lseek(fuse_req_t request, fuse_ino_t node, off_t offset, int whence,
                    fuse_file_info*) noexcept {
    with_inode(request, "lseek", node, [&](FuseTree const& me, Inode const& inode) {
      if ((whence != SEEK_DATA && whence != SEEK_HOLE) || !inode.is_regular())
        return refuse(request, EINVAL);
      auto const at = static_cast<std::uint64_t>(offset);
      if (offset < 0 || at >= inode.size()) return refuse(request, ENXIO);
      std::optional<std::uint64_t> found;
      auto const ok = me.reader_.runs(inode, at, inode.size(), [&](erofs::Run const& run) {
        if (run.place.has_value() == (whence == SEEK_DATA)) found = run.file_offset;
        return Result<bool>(!found);
      });
      if (!ok) return reply_failure(request, {"lseek", inode.nid, {}, at, 0, ok.error()});
      if (!found && whence == SEEK_HOLE) found = inode.size();  // there is one at the end
      if (!found) return refuse(request, ENXIO);
      ::fuse_reply_lseek(request, static_cast<off_t>(*found));
    });
  }

  /// READDIR and READDIRPLUS, by the function of Listing that adds an entry.
  template <auto add>
  static void list(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t offset,
                   fuse_file_info*) noexcept {
    with_inode(request, "readdir", node, [&](FuseTree const& me, Inode const& directory) {
      if (!directory.is_directory()) return refuse(request, ENOTDIR);
      Listing listing(request, fuse::detail::scratch(size), me.reader_, me.options_.on_failure);
      auto place = fuse::detail::DirectoryPlace::of(offset);
      auto const first = place.block;
      // Writers may leave "." out and say so.
      auto full = directory.record.flag() && offset == 0 &&
                  !(listing.*add)({".", directory.nid, erofs::FileType::directory}, place.offset());
      auto const visit = [&](erofs::DirBlock const& block) {
        for (; place.entry < block.count() && !full; ++place.entry) {
          auto const next = fuse::detail::DirectoryPlace{place.block, place.entry + 1};
          full = !(listing.*add)(block[static_cast<std::size_t>(place.entry)], next.offset());
        }
        ++place.block;
        place.entry = 0;
        return !full;
      };
      auto const ok = full ? Result<void>() : me.reader_.read_blocks(directory, visit, first);
      // With entries, the reader asks for the rest later, and gets the error then.
      if (!ok && listing.bytes().empty()) {
        return reply_failure(request, {"readdir", directory.nid, {}, 0, 0, ok.error()});
      }
      fuse::detail::reply_bytes(request, listing.bytes());
    });
  }

  static void statfs(fuse_req_t request, fuse_ino_t) noexcept {
    auto const all = self(request).reader_.statfs();
    struct statvfs status{};
    status.f_bsize = status.f_frsize = all.block_size;
    status.f_blocks = all.blocks;
    status.f_files = all.inodes;
    status.f_namemax = erofs::max_name_length;
    ::fuse_reply_statfs(request, &status);
  }

  /// Answers with a text, or its size if that was asked for.
  static void reply_sized(fuse_req_t request, std::span<std::byte const> value,
                          std::size_t size) noexcept {
    if (size != 0 && size < value.size()) return refuse(request, ERANGE);
    if (size != 0) return fuse::detail::reply_bytes(request, value);
    ::fuse_reply_xattr(request, value.size());
  }

  static void getxattr(fuse_req_t request, fuse_ino_t node, char const* name,
                       std::size_t size) noexcept {
    with_inode(request, "getxattr", node, [&](FuseTree const& me, Inode const& inode) {
      auto const all = me.reader_.xattrs(inode);
      if (!all) return reply_failure(request, {"getxattr", inode.nid, name, 0, 0, all.error()});
      auto const found = std::ranges::find(*all, std::string_view(name), &erofs::Xattr::name);
      if (found == all->end()) return refuse(request, ENODATA);
      reply_sized(request, found->value, size);
    });
  }

  static void listxattr(fuse_req_t request, fuse_ino_t node, std::size_t size) noexcept {
    with_inode(request, "listxattr", node, [&](FuseTree const& me, Inode const& inode) {
      auto const all = me.reader_.xattrs(inode);
      if (!all) return reply_failure(request, {"listxattr", inode.nid, {}, 0, 0, all.error()});
      // As the kernel's file systems: names that the caller could not read are not shown.
      auto const trusted = ::fuse_req_ctx(request)->uid == 0;
      std::string names;
      for (auto const& xattr : *all) {
        if (!trusted && xattr.name.starts_with("trusted.")) continue;
        names.append(xattr.name).push_back('\0');
      }
      reply_sized(request, as_bytes(names), size);
    });
  }

  erofs::Reader<Source> reader_;
  FuseServeOptions options_;
  std::atomic<bool> no_open_ = false;
  std::atomic<bool> no_opendir_ = false;
};

}  // namespace erofs_oci
