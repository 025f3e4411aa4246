// SPDX-License-Identifier: Apache-2.0
#include "file_list.hpp"

namespace mount_oci {

using erofs_oci::erofs::Step;
using erofs_oci::erofs::Visit;

FileList list_files(ImageReader const& reader, erofs_oci::erofs::Inode const& start,
                    std::string path, std::function<bool(std::size_t depth)> const& enter,
                    std::function<void(Visit const& at)> const& fails) {
  FileList files;
  walk_from(reader, start, std::move(path), [&](Visit const& at) {
    if (at.error != nullptr) {
      fails(at);
      return Step::enter;
    }
    auto name = at.depth == 0 ? at.path : at.path.substr(at.path.rfind('/') + 1);
    files.push_back({std::move(name), at.depth, *at.inode});
    return enter(at.depth) ? Step::enter : Step::skip;
  });
  return files;
}

}  // namespace mount_oci
