// SPDX-License-Identifier: Apache-2.0
/// @file
/// Finds a path in an image, and visits all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <utility>
#include <vector>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/directory.hpp>
#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/reader.hpp>

namespace erofs_oci::erofs {

/// Which symbolic links a path lookup follows. Targets are taken from the image's root, and ".."
/// never leaves it.
enum class Follow : std::uint8_t {
  none,     ///< none: a link may only be the last component, and is returned itself
  parents,  ///< those on the way, as lstat(2)
  all,      ///< the last component too, as stat(2)
};

/// Links followed in one lookup before ELOOP, as the kernel.
inline constexpr std::size_t max_links_followed = 40;

namespace detail {

/// Splits at '/' and puts the components in front of `todo`.
inline void prepend_components(std::string_view path, std::deque<std::string>& todo) {
  std::vector<std::string> parts;
  while (!path.empty()) {
    auto const slash = path.find('/');
    auto const part = path.substr(0, slash);
    if (!part.empty() && part != ".") parts.emplace_back(part);
    path = slash == std::string_view::npos ? std::string_view{} : path.substr(slash + 1);
  }
  todo.insert(todo.begin(), parts.begin(), parts.end());
}

}  // namespace detail

/// Finds an inode by its path from the root; ignores leading, trailing and double slashes.
/// @error{std::errc::no_such_file_or_directory, there is no such name}
/// @error{std::errc::not_a_directory, something on the way is none\, or a link that is not
/// followed}
/// @error{std::errc::too_many_symbolic_link_levels, more than 40 links}
/// @error{std::errc::filename_too_long, the links' targets add up to more than 64 KiB of
/// components}
template <RandomAccessSource S>
[[nodiscard]] Result<Inode> find(Reader<S> const& reader, std::string_view path,
                                 Follow follow = Follow::none) {
  auto const error = [&](std::errc code) {
    return fail(std::make_error_code(code), std::string(path));
  };
  auto root = reader.root();
  if (!root) return root;
  std::vector<Inode> way{*root};  // the last one is the present directory; for ".."
  std::deque<std::string> todo;
  detail::prepend_components(path, todo);
  std::size_t links = 0;
  while (!todo.empty()) {
    auto const name = std::move(todo.front());
    todo.pop_front();
    if (!way.back().is_directory()) return error(std::errc::not_a_directory);
    if (name == "..") {
      if (way.size() > 1) way.pop_back();
      continue;
    }
    EROFS_OCI_TRY_ASSIGN(auto const found, reader.lookup(way.back(), name), std::string(path));
    if (!found) return error(std::errc::no_such_file_or_directory);
    EROFS_OCI_TRY_ASSIGN(auto next, reader.inode(found->first), std::string(path));
    auto const last = todo.empty();
    if (!next.is_symlink() || follow == Follow::none || (last && follow == Follow::parents)) {
      way.push_back(std::move(next));
      continue;
    }
    if (++links > max_links_followed) return error(std::errc::too_many_symbolic_link_levels);
    EROFS_OCI_TRY_ASSIGN(auto const target, reader.read_link(next), std::string(path));
    if (target.starts_with('/')) way.resize(1, *root);
    detail::prepend_components(target, todo);
    if (todo.size() > 32768) return error(std::errc::filename_too_long);
  }
  return way.back();
}

/// What walk() does next.
enum class Step : std::uint8_t {
  enter,  ///< go on, into this directory if it is one
  skip,   ///< go on, but not into this directory
  stop,   ///< end the walk
};

/// One stop of a walk.
struct Visit {
  std::string const& path;  ///< from the root, "/" for itself, else without a slash at the end
  std::size_t depth = 0;    ///< 0 for the root
  FileType entry_type = FileType::unknown;  ///< from the directory entry
  std::uint64_t nid = 0;
  Inode const* inode = nullptr;  ///< null if it could not be read
  Error const* error = nullptr;  ///< why; or, with `inode`, why a directory cannot be entered
};

/// Bounds of a walk.
struct WalkOptions {
  std::size_t max_depth = 4096;  ///< directories deeper than this are an error
};

namespace detail {

template <RandomAccessSource S>
class Walker {
 public:
  Walker(Reader<S> const& reader, FunctionRef<Step(Visit const&)> visit, WalkOptions options)
      : reader_(reader), visit_(visit), options_(options) {}

  Result<void> run() {
    EROFS_OCI_TRY_ASSIGN(auto const root, reader_.root());
    run_from(root, "/");
    return {};
  }

  void run_from(Inode const& start, std::string path) {
    path_ = std::move(path);
    if (show({path_, 0, file_type(start.mode()), start.nid, &start, nullptr}) && entered_ &&
        start.is_directory()) {
      enter(start);
    }
    while (!stack_.empty() && !stopped_) step();
  }

 private:
  struct Child {
    std::string name;
    std::uint64_t nid;
    FileType type;
  };
  struct Level {
    std::vector<Child> children;
    std::size_t next = 0;
    std::size_t path_size = 0;  // of the directory's own path, without a slash at the end
  };

  bool show(Visit const& visit) {
    auto const step = visit_(visit);
    entered_ = step == Step::enter;
    stopped_ = stopped_ || step == Step::stop;
    return !stopped_;
  }

  void step() {
    auto& level = stack_.back();
    if (level.next == level.children.size()) {
      stack_.pop_back();
      return;
    }
    auto const& child = level.children[level.next++];
    path_.resize(level.path_size);
    path_ += '/';
    path_ += child.name;
    auto const inode = reader_.inode(child.nid);
    if (!inode) {
      show({path_, stack_.size(), child.type, child.nid, nullptr, &inode.error()});
      return;
    }
    if (!show({path_, stack_.size(), child.type, child.nid, &*inode, nullptr})) return;
    if (inode->is_directory() && entered_) enter(*inode);
  }

  void enter(Inode const& directory) {
    Level level;
    level.path_size = path_ == "/" ? 0 : path_.size();
    auto const listed = list(directory, level);
    if (!listed) {
      show({path_, stack_.size(), FileType::directory, directory.nid, &directory, &listed.error()});
      if (stopped_) return;
    }
    stack_.push_back(std::move(level));
  }

  // On an error the children before it stay listed.
  Result<void> list(Inode const& directory, Level& level) {
    auto const where = Reader<S>::name_of(directory);
    if (stack_.size() >= options_.max_depth) {
      return fail(Errc::corrupt, where + ": deeper than " + std::to_string(options_.max_depth));
    }
    if (!seen_.insert(directory.nid).second) {
      return fail(Errc::corrupt, where + ": this directory has two parents, or is its own");
    }
    // Directories of a sound image do not overlap. Without this bound a small image could hold many
    // directories that share one large content.
    if (directory.size() > reader_.frame().image_size() - listed_) {
      return fail(Errc::corrupt, where + ": directories are larger than the image together");
    }
    listed_ += directory.size();
    return reader_.readdir(directory, [&](DirEntry const& entry) {
      if (!entry.is_dot())
        level.children.push_back({std::string(entry.name), entry.nid, entry.type});
      return true;
    });
  }

  Reader<S> const& reader_;
  FunctionRef<Step(Visit const&)> visit_;
  WalkOptions options_;
  std::string path_ = "/";
  std::vector<Level> stack_;
  std::unordered_set<std::uint64_t> seen_;
  std::uint64_t listed_ = 0;  // bytes of directories
  bool entered_ = false;
  bool stopped_ = false;
};

}  // namespace detail

/// Visits the whole tree depth first, names in the image's order; "." and ".." are left out.
///
/// Reports damage to the visitor and goes on: an inode that cannot be read; and, after its entry
/// without an error, a directory that cannot be read, is entered a second time, lies too deep, or
/// makes all directories together larger than the image. So the walk always ends, in time linear in
/// the image.
///
/// @error{any, the root cannot be read}
template <RandomAccessSource S>
[[nodiscard]] Result<void> walk(Reader<S> const& reader, FunctionRef<Step(Visit const&)> visit,
                                WalkOptions options = {}) {
  return detail::Walker<S>(reader, visit, options).run();
}

/// walk() from any inode on, as find() yields it.
/// @param path  what to call it: "/", or without a slash at the end
template <RandomAccessSource S>
void walk_from(Reader<S> const& reader, Inode const& start, std::string path,
               FunctionRef<Step(Visit const&)> visit, WalkOptions options = {}) {
  detail::Walker<S>(reader, visit, options).run_from(start, std::move(path));
}

}  // namespace erofs_oci::erofs
