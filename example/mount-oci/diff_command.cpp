// SPDX-License-Identifier: Apache-2.0
// diff.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "entry.hpp"
#include "file_list.hpp"
#include "progress.hpp"
#include "reading.hpp"
#include "same_content.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::erofs::Follow;
using erofs_oci::erofs::Inode;
using erofs_oci::erofs::Visit;
using erofs_oci::json::Value;

/// What differs between two files of the same path.
struct Difference {
  std::string what;  ///< "mode", "content", ...
  std::string text;  ///< for people, with both values if there are any
};

std::string octal(std::uint16_t mode) {
  std::array<char, 8> text{};
  std::snprintf(text.data(), text.size(), "%03o", mode & 07777U);
  return text.data();
}

std::string owner_text(Inode const& inode) {
  return std::to_string(inode.record.uid) + ":" + std::to_string(inode.record.gid);
}

std::string device_text(Inode const& inode) {
  return std::to_string(inode.device().major) + "," + std::to_string(inode.device().minor);
}

/// Finds what differs between files of the two images.
class Comparison {
 public:
  Comparison(Reading const& reading, OpenedFiles const& old_image, OpenedFiles const& new_image)
      : read_(reading.options.read),
        output_(reading.output),
        old_image_(old_image),
        new_image_(new_image) {}

  [[nodiscard]] Result<std::vector<Difference>> compare(Inode const& a, Inode const& b) {
    differences_.clear();
    auto const same_type = type_letter(a.mode()) == type_letter(b.mode());
    if (!same_type)
      note("type", std::string(type_text(a.mode())), std::string(type_text(b.mode())));
    if (!a.is_symlink() || !b.is_symlink()) note("mode", octal(a.mode()), octal(b.mode()));
    note("owner", owner_text(a), owner_text(b));
    if (same_type) EROFS_OCI_TRY(compare_contents_of(a, b));
    EROFS_OCI_TRY(compare_attributes(a, b));
    if (same_type && !a.is_directory()) {
      note("links", std::to_string(a.record.links), std::to_string(b.record.links));
    }
    note("time", time_text(a.mtime, true), time_text(b.mtime, true));
    return std::move(differences_);
  }

 private:
  void note(std::string what, std::string const& a, std::string const& b) {
    if (a == b || ignores(what)) return;
    auto text = what + " " + a + " -> " + b;
    differences_.push_back({std::move(what), std::move(text)});
  }

  [[nodiscard]] bool ignores(std::string const& what) const {
    return std::ranges::find(read_.ignored_differences, what) != read_.ignored_differences.end();
  }

  /// Of two files of one type.
  Result<void> compare_contents_of(Inode const& a, Inode const& b) {
    if (a.is_device()) note("device", device_text(a), device_text(b));
    if (a.is_symlink()) {
      EROFS_OCI_TRY_ASSIGN(auto const from, old_image_.reader.read_link(a));
      EROFS_OCI_TRY_ASSIGN(auto const to, new_image_.reader.read_link(b));
      note("target", output_.shown(from), output_.shown(to));
    }
    if (!a.is_regular()) return {};
    note("size", std::to_string(a.size()), std::to_string(b.size()));
    EROFS_OCI_TRY_ASSIGN(auto const sameness,
                         compare_contents({old_image_, a}, {new_image_, b}, read_.content));
    if (sameness == Sameness::different && a.size() == b.size()) {
      differences_.push_back({"content", "content"});
    }
    if (sameness == Sameness::unknown) {
      differences_.push_back({"content?", "content not compared"});
    }
    return {};
  }

  Result<void> compare_attributes(Inode const& a, Inode const& b) {
    if (a.record.xattr_size() == 0 && b.record.xattr_size() == 0) return {};
    EROFS_OCI_TRY_ASSIGN(auto one, old_image_.reader.xattrs(a));
    EROFS_OCI_TRY_ASSIGN(auto other, new_image_.reader.xattrs(b));
    for (auto* const list : {&one, &other}) {
      std::ranges::sort(*list, {}, &erofs_oci::erofs::Xattr::name);
    }
    auto const equal = std::ranges::equal(one, other, [](auto const& x, auto const& y) {
      return x.name == y.name && x.value == y.value;
    });
    if (!equal && !ignores("attributes")) differences_.push_back({"attributes", "attributes"});
    return {};
  }

  ReadOptions const& read_;
  Output const& output_;
  OpenedFiles const& old_image_;
  OpenedFiles const& new_image_;
  std::vector<Difference> differences_;
};

class Differ {
 public:
  Differ(Reading const& reading, OpenedFiles const& old_image, OpenedFiles const& new_image)
      : reading_(reading),
        output_(reading.output),
        old_image_(old_image),
        new_image_(new_image),
        comparison_(reading, old_image, new_image) {}

  [[nodiscard]] Result<void> diff(std::string const& path) {
    EROFS_OCI_TRY_ASSIGN(auto const before, find(old_image_.reader, path));
    EROFS_OCI_TRY_ASSIGN(auto const after, find(new_image_.reader, path));
    if (!before && !after) {
      reading_.complain({std::make_error_code(std::errc::no_such_file_or_directory),
                         path + ": in neither image",
                         {}});
      status_ = 2;
      return {};
    }
    return merge(list(old_image_.reader, before, path), list(new_image_.reader, after, path));
  }

  /// As diff(1): 0 equal, 1 different, 2 trouble.
  [[nodiscard]] Status status() const noexcept { return status_; }

  /// Files of which only reading would tell.
  [[nodiscard]] std::uint64_t unknown() const noexcept { return unknown_; }

 private:
  /// Empty if there is no such path.
  static Result<std::optional<Inode>> find(ImageReader const& reader, std::string const& path) {
    auto found = find_path(reader, path, Follow::parents);
    if (found) return std::optional(*std::move(found));
    if (!is_about_path(found.error())) return fail(found.error());
    return std::optional<Inode>();
  }

  FileList list(ImageReader const& reader, std::optional<Inode> const& start,
                std::string const& path) {
    if (!start) return {};
    auto const enter = [](std::size_t) { return true; };
    return list_files(reader, *start, path_in_image(path), enter, [&](Visit const& at) {
      reading_.complain(erofs_oci::make_error(*at.error, at.path));
      status_ = 2;
    });
  }

  /// Both lists are depth first and by name, so what is in both is met at the same time.
  Result<void> merge(FileList const& before, FileList const& after) {
    PathOf old_path;
    PathOf new_path;
    auto a = before.begin();
    auto b = after.begin();
    while (a != before.end() || b != after.end()) {
      auto const order = a == before.end() ? 1 : b == after.end() ? -1 : order_of(*a, *b);
      if (order < 0) {
        EROFS_OCI_TRY(print_one("D", old_path(*a), old_image_.reader, a->inode, "old"));
      } else if (order > 0) {
        EROFS_OCI_TRY(print_one("A", new_path(*b), new_image_.reader, b->inode, "new"));
      } else {
        static_cast<void>(new_path(*b));
        EROFS_OCI_TRY(compare(old_path(*a), a->inode, b->inode));
      }
      if (order <= 0) ++a;
      if (order >= 0) ++b;
    }
    return {};
  }

  /// Below 0 if the first one is in its image alone, above if the second one is.
  static int order_of(ListedFile const& a, ListedFile const& b) {
    // The deeper one is in a directory that the other image has left, or that is none there.
    if (a.depth != b.depth) return a.depth > b.depth ? -1 : 1;
    return a.depth == 0 ? 0 : a.name.compare(b.name);
  }

  Result<void> print_one(std::string const& change, std::string const& path,
                         ImageReader const& reader, Inode const& inode, std::string const& side) {
    status_ = std::max(status_, 1);
    if (!reading_.options.read.json) {
      return output_.put(change + " " + output_.shown(path) + "\n");
    }
    Value object{{"change", change}};
    put_name(object, "path", path);
    EROFS_OCI_TRY_ASSIGN(object[side], entry_of(reader, path, inode));
    return output_.put_json(object);
  }

  Result<void> compare(std::string const& path, Inode const& a, Inode const& b) {
    EROFS_OCI_TRY_ASSIGN(auto const differences, comparison_.compare(a, b), path);
    if (differences.empty()) return {};
    status_ = std::max(status_, 1);
    auto const unknown = std::ranges::find(differences, "content?", &Difference::what);
    if (unknown != differences.end()) ++unknown_;
    std::string const change = unknown != differences.end() && differences.size() == 1 ? "?" : "M";
    if (reading_.options.read.json) return print_json(change, path, differences, a, b);
    std::string text;
    for (auto const& one : differences) text += (text.empty() ? "" : ", ") + one.text;
    return output_.put(change + " " + output_.shown(path) + " (" + text + ")\n");
  }

  Result<void> print_json(std::string const& change, std::string const& path,
                          std::vector<Difference> const& differences, Inode const& a,
                          Inode const& b) {
    Value object{{"change", change}, {"differs", Value::array()}};
    put_name(object, "path", path);
    for (auto const& one : differences) object["differs"].push_back(one.what);
    EROFS_OCI_TRY_ASSIGN(object["old"], entry_of(old_image_.reader, path, a));
    EROFS_OCI_TRY_ASSIGN(object["new"], entry_of(new_image_.reader, path, b));
    return output_.put_json(object);
  }

  static Result<Value> entry_of(ImageReader const& reader, std::string const& path,
                                Inode const& inode) {
    EROFS_OCI_TRY_ASSIGN(auto object, entry_json(reader, path, inode));
    object.erase("path");
    object.erase("path_hex");
    return object;
  }

  Reading const& reading_;
  Output& output_;
  OpenedFiles const& old_image_;
  OpenedFiles const& new_image_;
  Comparison comparison_;
  std::uint64_t unknown_ = 0;
  Status status_ = 0;
};

}  // namespace

Result<Status> run_diff(Reading const& reading) {
  auto const& options = reading.options;
  EROFS_OCI_TRY_ASSIGN(auto const old_image,
                       open_files(options.image, reading.log, &reading.guard));
  EROFS_OCI_TRY_ASSIGN(auto const new_image,
                       open_files(*options.other, reading.log, &reading.guard));
  Differ differ(reading, old_image, new_image);
  auto paths = options.read.paths;
  if (paths.empty()) paths.emplace_back("/");
  for (auto const& path : paths) EROFS_OCI_TRY(differ.diff(path));
  if (differ.unknown() > 0) {
    reading.log.say(
        Level::notice,
        counted(differ.unknown(), "file") +
            " of the same size in both images, but of other layers: --content reads and "
            "compares what is in such files");
  }
  return differ.status();
}

}  // namespace mount_oci
