// SPDX-License-Identifier: Apache-2.0
// Images of Writer, mounted by the running kernel and compared with the trees that they are made
// of. Needs root and a kernel with EROFS; says "skipped" otherwise. All mounts are in a mount
// namespace of the test's own and vanish with it.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <catch.hpp>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/erofs/writer.hpp>

#include "../../unit/erofs/trees.hpp"
#include "../mounting.hpp"

namespace erofs_oci::erofs {
namespace kernel_test {

using mounting::Folder;
using mounting::loop_over;
using mounting::mount_erofs;
using mounting::why_no_mounts;
using test::Oracle;
using test::Seen;
using test::SeenTree;

/// What the kernel shows below an open directory. Paths may be longer than PATH_MAX, so each step
/// is relative to the directory before.
class Mounted {
 public:
  explicit Mounted(Tree const& tree) : tree_(tree) {}

  SeenTree walk(std::string const& mount_point) {
    UniqueFd const root(::open(mount_point.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(root);
    add(root.get(), ".", "", root_id);
    return std::move(all_);
  }

 private:
  void add(int parent, std::string const& name, std::string const& path, NodeId id) {
    struct stat st{};
    INFO("path " << hex(as_bytes(path)));
    REQUIRE(::fstatat(parent, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0);
    first_.emplace(st.st_ino, path);
    Seen s;
    s.mode = st.st_mode;
    s.uid = st.st_uid;
    s.gid = st.st_gid;
    s.seconds = st.st_mtim.tv_sec;
    s.nanoseconds = static_cast<std::uint32_t>(st.st_mtim.tv_nsec);
    s.links = st.st_nlink;
    s.size = S_ISDIR(st.st_mode) ? 0 : static_cast<std::uint64_t>(st.st_size);
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
      s.major = major(st.st_rdev);
      s.minor = minor(st.st_rdev);
    }
    s.first_name = first_[st.st_ino];
    s.xattrs = xattrs("/proc/self/fd/" + std::to_string(parent) + "/" + name);
    if (S_ISLNK(st.st_mode)) {
      std::string target(5000, '\0');
      auto const n = ::readlinkat(parent, name.c_str(), target.data(), target.size());
      target.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
      s.target = std::move(target);
    }
    if (S_ISREG(st.st_mode)) s.content = content(parent, name, *tree_[id].regular());
    all_[path] = std::move(s);
    if (S_ISDIR(st.st_mode)) list(parent, name, path, id);
  }

  void list(int parent, std::string const& name, std::string const& path, NodeId id) {
    auto const fd = ::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    REQUIRE(fd >= 0);
    auto* const stream = ::fdopendir(fd);
    std::map<std::string, unsigned char> names;
    while (auto const* const entry = ::readdir(stream)) names[entry->d_name] = entry->d_type;
    CHECK(names["."] == DT_DIR);
    CHECK(names[".."] == DT_DIR);
    for (auto const& [child, type] : names) {
      if (child == "." || child == "..") continue;
      auto const* const node = tree_.find(id, child);
      INFO("unexpected name " << hex(as_bytes(child)));
      REQUIRE(node != nullptr);
      CHECK(type == test::st_type(tree_[*node].kind) >> 12);
      add(fd, child, path + "/" + child, *node);
    }
    ::closedir(stream);
  }

  static std::map<std::string, std::string> xattrs(std::string const& path) {
    std::string names(1 << 16, '\0');
    auto const n = ::llistxattr(path.c_str(), names.data(), names.size());
    std::map<std::string, std::string> all;
    for (ssize_t i = 0; i < n;) {
      std::string const name = names.data() + i;
      std::string value(1 << 16, '\0');
      auto const size = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
      value.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
      all[name] = size < 0 ? "unreadable" : value;
      i += static_cast<ssize_t>(name.size()) + 1;
    }
    return all;
  }

  static std::string content(int parent, std::string const& name, Regular const& file) {
    UniqueFd const fd(::openat(parent, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    std::string all;
    for (auto const& [offset, length] : test::probes(file)) {
      std::string bytes(static_cast<std::size_t>(length), '\0');
      auto const n = pread_full(fd.get(), offset, std::as_writable_bytes(std::span(bytes)));
      all += n && *n == bytes.size() ? bytes : "unreadable";
    }
    return all;
  }

  Tree const& tree_;
  SeenTree all_;
  std::map<ino_t, std::string> first_;
};

void compare(Tree const& tree, std::string const& mount_point, SeenTree const& expected) {
  auto const found = Mounted(tree).walk(mount_point);
  CHECK(found.size() == expected.size());
  for (auto const& [path, seen] : expected) {
    INFO("path " << hex(as_bytes(path)));
    REQUIRE(found.contains(path));
    CHECK(found.at(path) == seen);
  }
}

std::vector<Bytes const*> flat_parts(Bytes const& image, test::Made const& made) {
  std::vector<Bytes const*> parts{&image};
  for (auto const& bytes : made.bytes) parts.push_back(&bytes);
  return parts;
}

/// Runs fsck.erofs on a file, if there is one and it knows blocks of 512 bytes; 0 = sound.
int fsck_of_the_system(std::string const& path, std::string const& log) {
  if (std::system("command -v fsck.erofs >/dev/null 2>&1") != 0) return 0;
  auto const status = std::system(("fsck.erofs '" + path + "' >'" + log + "' 2>&1").c_str());
  std::ifstream file(log);
  std::stringstream text;
  text << file.rdbuf();
  // Older erofs-utils, Debian 12's 1.5 among them, take only blocks of a page.
  if (status != 0 && text.str().find("isn't supported on this platform") != std::string::npos) {
    std::cout << "fsck.erofs skipped: " << text.str() << '\n';
    return 0;
  }
  if (status != 0) std::cout << text.str() << '\n';
  return status;
}

TEST_CASE("The kernel shows what Writer was given", "[erofs][writer][kernel]") {
  static auto const skip = why_no_mounts();
  if (!skip.empty()) {
    WARN(skip);
    return;
  }
  auto const seed = GENERATE(1u, 2u, 3u, 4u, 5u, 6u);
  INFO("seed " << seed);
  auto const made = test::TreeMaker(seed, seed * 80).make();
  auto const marks = seed % 3 == 0 ? Marks::user : seed % 3 == 1 ? Marks::trusted : Marks::drop;
  WriteOptions options{.marks = marks, .implied = Implied::keep};
  if (seed % 2 == 0) options.alignment = 4096;
  auto const expected = Oracle(made.tree, made.bytes, marks).all();
  auto const image = Writer::make(made.tree, made.devices, options).value().to_bytes();
  Folder const folder;
  auto const flat = folder.write("flat", flat_parts(image, made));

  SECTION("flat, backed by a file") {
    auto const error = mount_erofs(flat, folder.mount_point(), "");
    if (error == ENOTBLK) {
      WARN("skipped: this kernel or file system cannot mount a file");
      return;
    }
    REQUIRE(error == 0);
    compare(made.tree, folder.mount_point(), expected);
  }
  SECTION("flat, on a loop device") {
    std::string path;
    auto const device = loop_over(flat, path);
    if (!device) {
      WARN("skipped: no loop device");
      return;
    }
    REQUIRE(mount_erofs(path, folder.mount_point(), "") == 0);
    compare(made.tree, folder.mount_point(), expected);
    folder.unmount();
  }
  SECTION("with a file for each device") {
    std::string devices;
    for (std::size_t i = 0; i < made.bytes.size(); ++i) {
      auto const name = folder.write("device" + std::to_string(i), {&made.bytes[i]});
      devices += (i == 0 ? "device=" : ",device=") + name;
    }
    auto const index = folder.write("index", {&image});
    auto const error = mount_erofs(index, folder.mount_point(), devices);
    if (error == ENOTBLK) {
      WARN("skipped: this kernel or file system cannot mount a file");
      return;
    }
    REQUIRE(error == 0);
    compare(made.tree, folder.mount_point(), expected);
  }
  SECTION("without a device table") {
    options.addressing = Addressing::absolute;
    auto const absolute = Writer::make(made.tree, made.devices, options).value().to_bytes();
    auto const path = folder.write("absolute", flat_parts(absolute, made));
    CHECK(fsck_of_the_system(path, path + ".log") == 0);
    auto const error = mount_erofs(path, folder.mount_point(), "");
    if (error == ENOTBLK) {
      WARN("skipped: this kernel or file system cannot mount a file");
      return;
    }
    REQUIRE(error == 0);
    compare(made.tree, folder.mount_point(), expected);
  }
}

}  // namespace kernel_test
}  // namespace erofs_oci::erofs
