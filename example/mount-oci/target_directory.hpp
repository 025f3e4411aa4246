// SPDX-License-Identifier: Apache-2.0
/// @file
/// TargetDirectory: makes files of an image below one directory, and never anywhere else.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/tree.hpp>

#include "process.hpp"

namespace mount_oci {

/// The attributes of a file.
struct Attributes {
  std::uint16_t mode = 0;  ///< type bits included
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  erofs_oci::erofs::Time mtime;
  std::vector<erofs_oci::erofs::Xattr> xattrs;
};

/// Yields a file's content: passes runs of bytes to `write`, with their offset in the file.
using FillFile = std::function<Result<void>(
    std::function<Result<void>(std::uint64_t offset, std::span<std::byte const> bytes)> const&
        write)>;

/// A directory that files are extracted to. It opens each directory on a path from the one above
/// and follows no symbolic link, also none that another process makes at the same time; so it
/// touches nothing outside. Replaces existing files, but no directory by a file; uses existing
/// directories. Not thread-safe.
///
/// Without being root, owners stay the caller's, set-user-id and set-group-id bits are left out,
/// and what the system refuses (devices, some attributes) is left out with a warning. If it is to
/// be safe, root leaves out devices, these bits, and attributes that give power (security.*,
/// trusted.*).
class TargetDirectory {
 public:
  using Warn = std::function<void(std::string const& text)>;

  /// Makes the directory if it is not there.
  /// @error{an errno, as mkdir(2) and open(2)}
  [[nodiscard]] static Result<TargetDirectory> open(std::string const& path, Warn warn,
                                                    bool safe = false);

  /// @name Making files. Paths are from the root and begin with a slash.
  /// @error{an errno, the text names the path}
  /// @{

  /// A directory that only its owner can use; see finish_directory().
  [[nodiscard]] Result<void> make_directory(std::string const& path);

  /// Gives a directory its attributes, once all is in it.
  [[nodiscard]] Result<void> finish_directory(std::string const& path, Attributes const& with);

  /// A regular file; one that `fill` fails on is removed.
  /// @param size  bytes; what `fill` does not write are holes
  [[nodiscard]] Result<void> make_file(std::string const& path, std::uint64_t size,
                                       FillFile const& fill, Attributes const& with);

  [[nodiscard]] Result<void> make_symlink(std::string const& path, std::string const& target,
                                          Attributes const& with);

  /// A device, fifo or socket.
  [[nodiscard]] Result<void> make_special(std::string const& path,
                                          erofs_oci::erofs::DeviceNumber device,
                                          Attributes const& with);

  [[nodiscard]] Result<void> make_link(std::string const& path, std::string const& target);
  /// @}

 private:
  TargetDirectory(UniqueFd root, Warn warn, bool is_root, bool safe)
      : root_(std::move(root)), warn_(std::move(warn)), is_root_(is_root), safe_(safe) {}

  struct Parent {
    int fd = -1;
    std::string name;
  };

  Result<Parent> parent_of(std::string const& path);
  Result<UniqueFd> open_directory(std::string_view path) const;
  Result<void> clear_way(Parent const& parent, std::string const& path) const;
  /// Calls `make`, which returns as system calls do, and once more without what is in its way;
  /// yields 0 or the errno of the last call.
  template <class Make>
  Result<int> make_anew(Parent const& parent, std::string const& path, Make const& make) const;
  Result<void> set_attributes(int fd, std::string const& path, Attributes const& with) const;
  Result<void> set_node_attributes(Parent const& parent, std::string const& path,
                                   Attributes const& with) const;
  Result<void> set_xattrs(std::string const& at, std::string const& path,
                          Attributes const& with) const;
  [[nodiscard]] std::uint32_t permissions(Attributes const& with) const noexcept {
    return with.mode & (is_root_ && !safe_ ? 07777u : 01777u);
  }

  UniqueFd root_;
  Warn warn_;
  bool is_root_;
  bool safe_;
  std::string last_path_;  // the directory that last_ is
  UniqueFd last_;
};

}  // namespace mount_oci
