// SPDX-License-Identifier: Apache-2.0
/// @file
/// Listing: one reply's worth of a directory, as READDIR and READDIRPLUS want it.
#pragma once

#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

#include <sys/stat.h>

#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/directory.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/fuse/api.hpp>
#include <erofs_oci/fuse/node.hpp>
#include <erofs_oci/fuse/reply.hpp>

namespace erofs_oci::fuse::detail {

/// Gathers entries until there is no more room.
template <RandomAccessSource Source>
class Listing {
 public:
  /// Borrows everything.
  Listing(fuse_req_t request, std::span<std::byte> out, erofs::Reader<Source> const& reader,
          OnFuseFailure const& report) noexcept
      : request_(request), out_(out), reader_(reader), report_(report) {}

  /// What has been gathered.
  [[nodiscard]] std::span<std::byte const> bytes() const noexcept { return out_.first(used_); }

  /// Adds a name; yields whether there was room.
  /// @param next  where the next entry is
  [[nodiscard]] bool add(erofs::DirEntry const& entry, off_t next) {
    struct stat status{};
    status.st_ino = entry.nid;
    status.st_mode = type_bits(entry.type);
    return take(::fuse_add_direntry(request_, free_text(), out_.size() - used_, text_of(entry.name),
                                    &status, next));
  }

  /// Adds a name with the reply of LOOKUP for it.
  [[nodiscard]] bool add_plus(erofs::DirEntry const& entry, off_t next) {
    auto const* const name = text_of(entry.name);
    // No inode is read for an entry that has no room.
    auto const size = ::fuse_add_direntry_plus(request_, nullptr, 0, name, nullptr, next);
    if (size > out_.size() - used_) return false;
    fuse_entry_param parameters{};  // node 0: the kernel learns the name, and asks when needed
    parameters.attr.st_ino = entry.nid;
    parameters.attr.st_mode = type_bits(entry.type);
    if (!entry.is_dot()) {
      auto const inode = reader_.inode(entry.nid);
      if (inode) {
        parameters = Nodes(reader_.superblock().root()).entry_of(*inode);
      } else if (report_) {  // the other names are good; a lookup of this one gets the error
        report_({"readdirplus", entry.nid, entry.name, 0, 0, inode.error()});
      }
    }
    return take(::fuse_add_direntry_plus(request_, free_text(), out_.size() - used_, name,
                                         &parameters, next));
  }

 private:
  [[nodiscard]] char* free_text() noexcept { return reinterpret_cast<char*>(out_.data()) + used_; }

  [[nodiscard]] char const* text_of(std::string_view text) noexcept {
    std::memcpy(name_.data(), text.data(), text.size());
    name_[text.size()] = '\0';
    return name_.data();
  }

  [[nodiscard]] bool take(std::size_t n) noexcept {
    if (n > out_.size() - used_) return false;
    used_ += n;
    return true;
  }

  [[nodiscard]] static mode_t type_bits(erofs::FileType type) noexcept {
    constexpr std::array<mode_t, 8> bits{0,       S_IFREG, S_IFDIR,  S_IFCHR,
                                         S_IFBLK, S_IFIFO, S_IFSOCK, S_IFLNK};
    auto const i = static_cast<std::size_t>(type);
    return i < bits.size() ? bits[i] : 0;
  }

  fuse_req_t request_;
  std::span<std::byte> out_;
  erofs::Reader<Source> const& reader_;
  OnFuseFailure const& report_;
  std::size_t used_ = 0;
  std::array<char, erofs::max_name_length + 1> name_{};
};

}  // namespace erofs_oci::fuse::detail
