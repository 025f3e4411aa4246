// SPDX-License-Identifier: Apache-2.0
/// @file
/// FileList: the files of a directory tree of an image, in memory.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/walk.hpp>

#include "image.hpp"

namespace mount_oci {

/// A file of a FileList.
struct ListedFile {
  std::string name;       ///< its last component; of the first file the whole path
  std::size_t depth = 0;  ///< directories between it and the first file, which has 0
  erofs_oci::erofs::Inode inode;
};

/// Depth first: a directory stands before what is in it, and names in the image's order. No path
/// but the first is kept, so that a deep tree takes no more memory than a flat one.
using FileList = std::vector<ListedFile>;

/// Lists what is at `start` and below.
/// @param path   what to call it: "/", or without a slash at the end
/// @param enter  whether to list what is in a directory of that depth
/// @param fails  is told what cannot be read, and is left out
[[nodiscard]] FileList list_files(
    ImageReader const& reader, erofs_oci::erofs::Inode const& start, std::string path,
    std::function<bool(std::size_t depth)> const& enter,
    std::function<void(erofs_oci::erofs::Visit const& at)> const& fails);

/// The paths of the files of a FileList, which it must be given one after the other.
class PathOf {
 public:
  [[nodiscard]] std::string const& operator()(ListedFile const& file) {
    if (file.depth == 0) {
      path_ = file.name;
      ends_.assign(1, path_ == "/" ? 0 : path_.size());
      return path_;
    }
    ends_.resize(file.depth);
    path_.resize(ends_.back());
    path_ += '/';
    path_ += file.name;
    ends_.push_back(path_.size());
    return path_;
  }

 private:
  std::string path_;
  std::vector<std::size_t> ends_;  // of the path's directories, by depth
};

}  // namespace mount_oci
