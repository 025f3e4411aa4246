// SPDX-License-Identifier: Apache-2.0
// ls and find.
#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include <fnmatch.h>

#include "entry.hpp"
#include "reading.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::erofs::Follow;
using erofs_oci::erofs::Inode;
using erofs_oci::erofs::Step;
using erofs_oci::erofs::Visit;

/// A line of a listing.
struct Line {
  std::string path;
  std::string name;  ///< what a listing for people shows of it
  Inode inode;
};

std::string middle_of(Inode const& inode) {
  if (!inode.is_device()) return std::to_string(inode.size());
  return std::to_string(inode.device().major) + ", " + std::to_string(inode.device().minor);
}

std::string right(std::string text, std::size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + std::move(text);
}

class Lister {
 public:
  Lister(Reading const& reading, ImageReader const& reader)
      : output_(reading.output), read_(reading.options.read), reading_(reading), reader_(reader) {}

  /// Lists what a path leads to; what cannot be read is told and left out.
  [[nodiscard]] Result<Status> list(std::string const& path, bool titled) {
    auto const follow = read_.long_form ? Follow::parents : Follow::all;
    auto const inode = find_path(reader_, path, follow);
    if (!inode) return fail(inode.error());
    auto const name = absolute(path);
    if (!inode->is_directory()) {
      auto const ok = print({{name, name, *inode}});
      if (!ok) return fail(ok.error());
      return status_;
    }
    seen_.clear();
    return list_directory(name, *inode, titled || read_.recursive, 0);
  }

 private:
  static constexpr std::size_t max_depth = 4096;

  /// Tells of a directory that a damaged image puts in two places, or too deep.
  bool may_enter(std::string const& path, Inode const& directory, std::size_t depth) {
    if (seen_.insert(directory.nid).second && depth < max_depth) return true;
    reading_.complain({Errc::corrupt, path + ": a directory in itself, in two, or too deep", {}});
    status_ = 1;
    return false;
  }

  std::vector<Line> children_of(std::string const& path, Inode const& directory) {
    std::vector<Line> lines;
    walk_from(reader_, directory, path, [&](Visit const& at) {
      if (at.error != nullptr) complain(at);
      if (at.depth == 0) return Step::enter;
      if (at.inode == nullptr) return Step::skip;
      lines.push_back({at.path, at.path.substr(at.path.rfind('/') + 1), *at.inode});
      return Step::skip;
    });
    return lines;
  }

  Result<Status> list_directory(std::string const& path, Inode const& directory, bool titled,
                                std::size_t depth) {
    if (!may_enter(path, directory, depth)) return status_;
    auto const lines = children_of(path, directory);
    Result<void> ok;
    if (titled && !read_.json) {
      ok = output_.put((first_ ? "" : "\n") + output_.shown(path) + ":\n");
    }
    first_ = false;
    if (ok) ok = print(lines);
    for (auto const& line : lines) {
      if (!ok || !read_.recursive) break;
      if (!line.inode.is_directory()) continue;
      auto const below = list_directory(line.path, line.inode, true, depth + 1);
      if (!below) ok = fail(below.error());
    }
    if (!ok) return fail(ok.error());
    return status_;
  }

  void complain(Visit const& at) {
    reading_.complain(fail(*at.error, at.path).value());
    status_ = 1;
  }

  Result<void> print(std::vector<Line> const& lines) {
    if (read_.json) return print_json(lines);
    if (read_.long_form) return print_long(lines);
    for (auto const& line : lines) {
      if (auto ok = output_.put(output_.shown(line.name) + "\n"); !ok) return ok;
    }
    return {};
  }

  Result<void> print_json(std::vector<Line> const& lines) {
    for (auto const& line : lines) {
      auto const object = entry_json(reader_, line.path, line.inode);
      if (!object) return fail(object.error());
      if (auto ok = output_.put_json(*object); !ok) return ok;
    }
    return {};
  }

  Result<void> print_long(std::vector<Line> const& lines) {
    std::size_t links = 0;
    std::size_t uid = 0;
    std::size_t gid = 0;
    std::size_t size = 0;
    for (auto const& [path, name, inode] : lines) {
      links = std::max(links, std::to_string(inode.record.links).size());
      uid = std::max(uid, std::to_string(inode.record.uid).size());
      gid = std::max(gid, std::to_string(inode.record.gid).size());
      size = std::max(size, middle_of(inode).size());
    }
    for (auto const& [path, name, inode] : lines) {
      auto const target = link_text(reader_, inode, output_);
      if (!target) return fail(target.error(), path);
      auto const ok = output_.put(
          mode_text(inode.mode()) + " " + right(std::to_string(inode.record.links), links) + " " +
          right(std::to_string(inode.record.uid), uid) + " " +
          right(std::to_string(inode.record.gid), gid) + " " + right(middle_of(inode), size) + " " +
          time_text(inode.mtime) + " " + output_.shown(name) + *target + "\n");
      if (!ok) return ok;
    }
    return {};
  }

  Output& output_;
  ReadOptions const& read_;
  Reading const& reading_;
  ImageReader const& reader_;
  Status status_ = 0;
  bool first_ = true;
  std::unordered_set<std::uint64_t> seen_;  // directories listed
};

// ---------------------------------------------------------------- find

class Finder {
 public:
  Finder(Reading const& reading, ImageReader const& reader) : reading_(reading), reader_(reader) {}

  [[nodiscard]] Result<Status> find(std::string const& path) {
    auto const start = find_path(reader_, path, Follow::parents);
    if (!start) return fail(start.error());
    Result<void> ok;
    walk_from(reader_, *start, absolute(path), [&](Visit const& at) {
      if (at.error != nullptr) {
        reading_.complain(fail(*at.error, at.path).value());
        status_ = 1;
      } else if (matches(at)) {
        ok = print(at);
      }
      return ok ? Step::enter : Step::stop;
    });
    if (!ok) return fail(ok.error());
    return status_;
  }

 private:
  bool matches(Visit const& at) const {
    auto const& read = reading_.options.read;
    if (read.type != 0 && type_letter(at.inode->mode()) != read.type) return false;
    if (read.name.empty()) return true;
    auto const name = at.path == "/" ? at.path : at.path.substr(at.path.rfind('/') + 1);
    return ::fnmatch(read.name.c_str(), name.c_str(), 0) == 0;
  }

  Result<void> print(Visit const& at) {
    auto& output = reading_.output;
    if (reading_.options.read.json) {
      auto const object = entry_json(reader_, at.path, *at.inode);
      if (!object) return fail(object.error());
      return output.put_json(*object);
    }
    if (reading_.options.read.print0) return output.put(at.path + '\0');
    return output.put(output.shown(at.path) + "\n");
  }

  Reading const& reading_;
  ImageReader const& reader_;
  Status status_ = 0;
};

}  // namespace

Result<Status> run_ls(Reading const& reading) {
  auto const reader = reading.open();
  if (!reader) return fail(reader.error());
  Lister lister(reading, *reader);
  auto const titled = reading.options.read.paths.size() > 1;
  return for_each_path(reading, [&](auto const& path) { return lister.list(path, titled); });
}

Result<Status> run_find(Reading const& reading) {
  auto const reader = reading.open();
  if (!reader) return fail(reader.error());
  Finder finder(reading, *reader);
  return for_each_path(reading, [&](auto const& path) { return finder.find(path); });
}

}  // namespace mount_oci
