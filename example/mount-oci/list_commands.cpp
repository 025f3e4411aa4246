// SPDX-License-Identifier: Apache-2.0
// ls and find.
#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <optional>
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

/// The columns of a long listing that stand to the right: links, owner, group, size or device.
std::array<std::string, 4> columns_of(Inode const& inode, bool human) {
  auto const& record = inode.record;
  return {std::to_string(record.links), std::to_string(record.uid), std::to_string(record.gid),
          inode.is_device()
              ? std::to_string(inode.device().major) + ", " + std::to_string(inode.device().minor)
          : human ? short_size(inode.size())
                  : std::to_string(inode.size())};
}

/// Reports what cannot be read.
void complain(Reading const& reading, Visit const& at, Status& status) {
  reading.complain(erofs_oci::make_error(*at.error, at.path));
  status = 1;
}

class Lister {
 public:
  Lister(Reading const& reading, ImageReader const& reader)
      : output_(reading.output), read_(reading.options.read), reading_(reading), reader_(reader) {}

  /// Lists what a path leads to; reports what cannot be read, and leaves it out.
  [[nodiscard]] Result<Status> list(std::string const& path, bool titled) {
    auto const follow = read_.long_form ? Follow::parents : Follow::all;
    EROFS_OCI_TRY_ASSIGN(auto const inode, find_path(reader_, path, follow));
    auto const name = path_in_image(path);
    if (!inode.is_directory()) {
      EROFS_OCI_TRY(print({{name, name, inode}}));
      return status_;
    }
    seen_.clear();
    return list_directory(name, inode, titled || read_.recursive, 0);
  }

 private:
  static constexpr std::size_t max_depth = 4096;

  /// Reports a directory that a damaged image has in two places, or too deep.
  bool may_enter(std::string const& path, Inode const& directory, std::size_t depth) {
    if (seen_.insert(directory.nid).second && depth < max_depth) return true;
    reading_.complain({Errc::corrupt,
                       path + ": a directory that contains itself, has two parents, or is too deep",
                       {}});
    status_ = 1;
    return false;
  }

  std::vector<Line> children_of(std::string const& path, Inode const& directory) {
    std::vector<Line> lines;
    walk_from(reader_, directory, path, [&](Visit const& at) {
      if (at.error != nullptr) complain(reading_, at, status_);
      if (at.depth == 0) return Step::enter;
      if (at.inode == nullptr) return Step::skip;
      lines.push_back({at.path, at.path.substr(at.path.rfind('/') + 1), *at.inode});
      return Step::skip;
    });
    sort(lines);
    return lines;
  }

  /// As the options want it; those that are alike stay by name.
  void sort(std::vector<Line>& lines) const {
    if (!read_.by_time && !read_.by_size && !read_.reverse) return;  // by name already
    auto const ahead = [&](Line const& a, Line const& b) {
      if (read_.by_time) return a.inode.mtime > b.inode.mtime;
      return read_.by_size && a.inode.size() > b.inode.size();
    };
    // By place, not std::stable_sort: the buffer of that is one that clang calls deprecated.
    std::vector<std::size_t> order(lines.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
      if (ahead(lines[a], lines[b])) return true;
      return !ahead(lines[b], lines[a]) && a < b;
    });
    if (read_.reverse) std::ranges::reverse(order);
    std::vector<Line> sorted;
    sorted.reserve(lines.size());
    for (auto const i : order) sorted.push_back(std::move(lines[i]));
    lines = std::move(sorted);
  }

  Result<Status> list_directory(std::string const& path, Inode const& directory, bool titled,
                                std::size_t depth) {
    if (!may_enter(path, directory, depth)) return status_;
    auto const lines = children_of(path, directory);
    auto const* const gap = std::exchange(first_, false) ? "" : "\n";
    if (titled && !read_.json) EROFS_OCI_TRY(output_.put(gap + output_.shown(path) + ":\n"));
    EROFS_OCI_TRY(print(lines));
    for (auto const& line : lines) {
      if (!read_.recursive || !line.inode.is_directory()) continue;
      EROFS_OCI_TRY(list_directory(line.path, line.inode, true, depth + 1));
    }
    return status_;
  }

  Result<void> print(std::vector<Line> const& lines) {
    if (read_.json) return print_json(lines);
    if (read_.long_form) return print_long(lines);
    for (auto const& line : lines) {
      EROFS_OCI_TRY(output_.put(output_.shown(line.name) + "\n"));
    }
    return {};
  }

  Result<void> print_json(std::vector<Line> const& lines) {
    for (auto const& line : lines) {
      EROFS_OCI_TRY_ASSIGN(auto const object, entry_json(reader_, line.path, line.inode));
      EROFS_OCI_TRY(output_.put_json(object));
    }
    return {};
  }

  Result<void> print_long(std::vector<Line> const& lines) {
    std::array<std::size_t, 4> widths{};
    for (auto const& line : lines) {
      auto const columns = columns_of(line.inode, read_.human);
      for (std::size_t i = 0; i < 4; ++i) widths[i] = std::max(widths[i], columns[i].size());
    }
    for (auto const& [path, name, inode] : lines) {
      EROFS_OCI_TRY_ASSIGN(auto const target, link_text(reader_, inode, output_), path);
      auto const columns = columns_of(inode, read_.human);
      auto text = mode_text(inode.mode());
      for (std::size_t i = 0; i < 4; ++i) {
        text += std::string(1 + widths[i] - columns[i].size(), ' ') + columns[i];
      }
      text += " " + time_text(inode.mtime) + " " + output_.shown(name) + target + "\n";
      EROFS_OCI_TRY(output_.put(text));
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

  /// Looks up the file that others must be newer than.
  [[nodiscard]] Result<void> prepare() {
    auto const& newer = reading_.options.read.tests.newer;
    if (newer.empty()) return {};
    EROFS_OCI_TRY_ASSIGN(auto const inode, find_path(reader_, newer, Follow::all), "-newer");
    newer_than_ = inode.mtime;
    return {};
  }

  [[nodiscard]] Result<Status> find(std::string const& path) {
    EROFS_OCI_TRY_ASSIGN(auto const start, find_path(reader_, path, Follow::parents));
    Result<void> ok;
    walk_from(reader_, start, path_in_image(path), [&](Visit const& at) {
      auto const& read = reading_.options.read;
      if (at.error != nullptr) {
        complain(reading_, at, status_);
      } else if (at.depth >= read.min_depth && matches(at)) {
        ok = print(at);
      }
      if (!ok) return Step::stop;
      return at.depth < read.max_depth ? Step::enter : Step::skip;
    });
    if (!ok) return fail(ok.error());
    return status_;
  }

 private:
  bool matches(Visit const& at) const {
    auto const& tests = reading_.options.read.tests;
    auto const& inode = *at.inode;
    auto const name = at.path == "/" ? at.path : at.path.substr(at.path.rfind('/') + 1);
    auto const fits = [](std::string const& pattern, std::string const& text, int flags) {
      return pattern.empty() || ::fnmatch(pattern.c_str(), text.c_str(), flags) == 0;
    };
    auto const holds = [](auto const& test, auto value) { return !test || test->matches(value); };
    return (tests.type == 0 || type_letter(inode.mode()) == tests.type) &&
           fits(tests.name, name, 0) && fits(tests.name_in_any_case, name, FNM_CASEFOLD) &&
           fits(tests.path, at.path, 0) && holds(tests.mode, inode.mode()) &&
           holds(tests.size, inode.size()) && holds(tests.uid, inode.record.uid) &&
           holds(tests.gid, inode.record.gid) && holds(tests.links, inode.record.links) &&
           (!newer_than_ || inode.mtime > *newer_than_);
  }

  Result<void> print(Visit const& at) {
    auto& output = reading_.output;
    if (reading_.options.read.json) {
      EROFS_OCI_TRY_ASSIGN(auto const object, entry_json(reader_, at.path, *at.inode));
      return output.put_json(object);
    }
    if (reading_.options.read.print0) return output.put(at.path + '\0');
    return output.put(output.shown(at.path) + "\n");
  }

  Reading const& reading_;
  ImageReader const& reader_;
  std::optional<erofs_oci::erofs::Time> newer_than_;
  Status status_ = 0;
};

}  // namespace

Result<Status> run_ls(Reading const& reading) {
  EROFS_OCI_TRY_ASSIGN(auto const reader, reading.open());
  Lister lister(reading, reader);
  EROFS_OCI_TRY_ASSIGN(auto const paths, paths_of(reading, reader));
  auto const titled = paths.size() > 1;
  return for_each_path(reading, reader,
                       [&](auto const& path) { return lister.list(path, titled); });
}

Result<Status> run_find(Reading const& reading) {
  EROFS_OCI_TRY_ASSIGN(auto const reader, reading.open());
  Finder finder(reading, reader);
  if (auto const ok = finder.prepare(); !ok) {
    if (!is_about_path(ok.error())) return fail(ok.error());
    reading.complain(ok.error());
    return 1;
  }
  return for_each_path(reading, reader, [&](auto const& path) { return finder.find(path); });
}

}  // namespace mount_oci
