// SPDX-License-Identifier: Apache-2.0
// tree.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <ranges>
#include <string>
#include <string_view>
#include <vector>

#include "entry.hpp"
#include "file_list.hpp"
#include "locale.hpp"
#include "progress.hpp"
#include "reading.hpp"

namespace mount_oci {
namespace {

using erofs_oci::erofs::Follow;
using erofs_oci::erofs::Visit;

/// What lines are drawn with.
struct Strokes {
  std::string_view child;       ///< in front of a name with others below
  std::string_view last_child;  ///< in front of the last name of its directory
  std::string_view passing;     ///< of a directory that has more names below
  std::string_view nothing;
};

/// As tree(1) has them, with its blanks that are never broken.
constexpr Strokes box_strokes{"├── ", "└── ", "│\u00a0\u00a0 ", "    "};
constexpr Strokes ascii_strokes{"|-- ", "`-- ", "|   ", "    "};

/// Whether each file is the last one of its directory.
std::vector<bool> find_last(FileList const& files) {
  std::vector<bool> last(files.size());
  std::vector<bool> follows;  // by depth: whether another file stands below in the same directory
  for (auto i = files.size(); i-- > 0;) {
    auto const depth = files[i].depth;
    last[i] = depth >= follows.size() || !follows[depth];
    follows.resize(depth + 1);
    follows[depth] = true;
  }
  return last;
}

class Drawer {
 public:
  Drawer(Reading const& reading, ImageReader const& reader)
      : reading_(reading),
        read_(reading.options.read),
        output_(reading.output),
        reader_(reader),
        strokes_(is_utf8_locale([](char const* name) { return std::getenv(name); })
                     ? box_strokes
                     : ascii_strokes) {}

  [[nodiscard]] Result<Status> draw(std::string const& path) {
    EROFS_OCI_TRY_ASSIGN(auto const start, find_path(reader_, path, Follow::parents));
    Status status = 0;
    auto const fails = [&](Visit const& at) {
      reading_.complain(erofs_oci::make_error(*at.error, at.path));
      status = 1;
    };
    auto const enter = [&](std::size_t depth) { return depth < read_.max_depth; };
    auto files = list_files(reader_, start, path_in_image(path), enter, fails);
    if (read_.directories_only) {
      std::erase_if(files, [](ListedFile const& file) {
        return file.depth > 0 && !file.inode.is_directory();
      });
    }
    for (auto const& file : files) ++(file.inode.is_directory() ? directories_ : others_);
    EROFS_OCI_TRY(read_.json ? print_json(files) : print(files));
    return status;
  }

  [[nodiscard]] Result<void> print_counts() const {
    if (read_.json) return {};
    auto text =
        "\n" + std::to_string(directories_) + (directories_ == 1 ? " directory" : " directories");
    if (!read_.directories_only) text += ", " + counted(others_, "file");
    return output_.put(text + "\n");
  }

 private:
  Result<void> print(FileList const& files) {
    auto const last = find_last(files);
    std::string margin;             // in front of the names of a directory
    std::vector<std::size_t> ends;  // of the margin's parts, by depth
    for (std::size_t i = 0; i < files.size(); ++i) {
      auto const& [name, depth, inode] = files[i];
      std::string line;
      if (depth > 0) {
        ends.resize(depth - 1);
        margin.resize(ends.empty() ? 0 : ends.back());
        line = margin + std::string(last[i] ? strokes_.last_child : strokes_.child);
        margin += last[i] ? strokes_.nothing : strokes_.passing;
        ends.push_back(margin.size());
      }
      if (read_.sizes || read_.human) line += size_of(inode);
      EROFS_OCI_TRY_ASSIGN(auto const target, link_text(reader_, inode, output_), name);
      EROFS_OCI_TRY(output_.put(line + output_.shown(name) + target + "\n"));
    }
    return {};
  }

  [[nodiscard]] std::string size_of(erofs_oci::erofs::Inode const& inode) const {
    auto const size = read_.human ? short_size(inode.size()) : std::to_string(inode.size());
    auto const width = std::max<std::size_t>(read_.human ? 4 : 11, size.size());
    return "[" + std::string(width - size.size(), ' ') + size + "]  ";
  }

  Result<void> print_json(FileList const& files) {
    PathOf path_of;
    for (auto const& file : files) {
      EROFS_OCI_TRY_ASSIGN(auto const object, entry_json(reader_, path_of(file), file.inode));
      EROFS_OCI_TRY(output_.put_json(object));
    }
    return {};
  }

  Reading const& reading_;
  ReadOptions const& read_;
  Output& output_;
  ImageReader const& reader_;
  Strokes strokes_;
  std::uint64_t directories_ = 0;
  std::uint64_t others_ = 0;
};

}  // namespace

Result<Status> run_tree(Reading const& reading) {
  EROFS_OCI_TRY_ASSIGN(auto const reader, reading.open());
  Drawer drawer(reading, reader);
  EROFS_OCI_TRY_ASSIGN(auto const status, for_each_path(reading, reader, [&](auto const& path) {
                         return drawer.draw(path);
                       }));
  EROFS_OCI_TRY(drawer.print_counts());
  return status;
}

}  // namespace mount_oci
