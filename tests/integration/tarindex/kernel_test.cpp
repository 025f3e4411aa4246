// SPDX-License-Identifier: Apache-2.0
// The archives of the fixtures, mounted by the running kernel: upstream's images of them show what
// their manifests say, and ours what our reading of the archive says, which the unit tests compare
// with the same manifests. Needs root and a kernel with EROFS; says "skipped" otherwise.
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <catch.hpp>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/load.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/tarindex/merge.hpp>

#include "../../unit/tarindex/sparse_archive.hpp"
#include "../../unit/tarindex/support.hpp"
#include "../mounting.hpp"

namespace erofs_oci::tarindex {
namespace kernel_test {

/// What the kernel shows below a mount point: every attribute that it lists is among the rows.
class Mounted {
 public:
  explicit Mounted(std::string const& mount_point) {
    UniqueFd const root(::open(mount_point.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(root);
    add(root.get(), ".", "");
  }

  [[nodiscard]] Rows const& rows() const { return rows_; }

 private:
  // Each step is relative to the directory before: paths may be longer than PATH_MAX.
  void add(int parent, std::string const& name, std::string const& path) {
    INFO("path " << path);
    struct stat st{};
    REQUIRE(::fstatat(parent, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0);
    auto& row = rows_[path.empty() ? "/" : path];
    row.mode = st.st_mode & 07777U;
    row.uid = st.st_uid;
    row.gid = st.st_gid;
    row.mtime = st.st_mtim.tv_sec;
    row.nsec = static_cast<std::uint32_t>(st.st_mtim.tv_nsec);
    row.xattrs = xattrs("/proc/self/fd/" + std::to_string(parent) + "/" + name);
    row.type = type(st.st_mode);
    if (S_ISDIR(st.st_mode)) return list(parent, name, path);
    row.size = static_cast<std::uint64_t>(st.st_size);
    row.nlink = static_cast<std::uint32_t>(st.st_nlink);
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
      row.rdev = std::to_string(major(st.st_rdev)) + ":" + std::to_string(minor(st.st_rdev));
    }
    if (S_ISLNK(st.st_mode)) row.target = target(parent, name);
    if (S_ISREG(st.st_mode)) row.sha256 = sha256(parent, name, row.size);
  }

  void list(int parent, std::string const& name, std::string const& path) {
    auto const fd = ::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    REQUIRE(fd >= 0);
    auto* const stream = ::fdopendir(fd);
    std::set<std::string> names;
    while (auto const* const entry = ::readdir(stream)) names.insert(entry->d_name);
    for (auto const& child : names) {
      if (child != "." && child != "..") add(fd, child, path + "/" + child);
    }
    ::closedir(stream);
  }

  static std::string type(mode_t mode) {
    static std::map<mode_t, char const*> const names{
        {S_IFREG, "reg"}, {S_IFDIR, "dir"},  {S_IFLNK, "lnk"},  {S_IFCHR, "chr"},
        {S_IFBLK, "blk"}, {S_IFIFO, "fifo"}, {S_IFSOCK, "sock"}};
    return names.at(mode & S_IFMT);
  }

  static std::map<std::string, std::string> xattrs(std::string const& path) {
    std::string names(1 << 16, '\0');
    auto const n = ::llistxattr(path.c_str(), names.data(), names.size());
    REQUIRE(n >= 0);
    std::map<std::string, std::string> all;
    for (std::size_t at = 0; at < static_cast<std::size_t>(n);) {
      std::string const name = names.data() + at;
      std::string value(1 << 16, '\0');
      auto const size = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
      INFO("attribute " << name);
      REQUIRE(size >= 0);
      value.resize(static_cast<std::size_t>(size));
      CHECK(all.emplace(name, std::move(value)).second);
      at += name.size() + 1;
    }
    return all;
  }

  static std::string target(int parent, std::string const& name) {
    std::string text(5000, '\0');
    auto const n = ::readlinkat(parent, name.c_str(), text.data(), text.size());
    REQUIRE(n >= 0);
    text.resize(static_cast<std::size_t>(n));
    return text;
  }

  static std::string sha256(int parent, std::string const& name, std::uint64_t size) {
    UniqueFd const fd(::openat(parent, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    REQUIRE(fd);
    Bytes bytes(static_cast<std::size_t>(size) + 1);
    auto const n = pread_full(fd.get(), 0, std::span(bytes));
    REQUIRE(n);
    CHECK(*n == size);
    return digest_of(std::span(bytes).first(*n)).hex();
  }

  Rows rows_;
};

/// Mounts an image with its devices; flat on a loop device where the kernel mounts no files. False:
/// it could be mounted in neither way.
[[nodiscard]] bool mounted(mounting::Folder const& folder, Bytes const& image,
                           std::vector<Bytes> const& devices) {
  std::string words;
  std::vector<Bytes const*> flat{&image};
  for (auto const& device : devices) {
    auto const name = "device" + std::to_string(flat.size());
    words += (words.empty() ? "device=" : ",device=") + folder.write(name, {&device});
    flat.push_back(&device);
  }
  auto const error =
      mounting::mount_erofs(folder.write("image", {&image}), folder.mount_point(), words);
  if (error != ENOTBLK) {
    CHECK(error == 0);
    return error == 0;
  }
  std::string path;
  auto const device = mounting::loop_over(folder.write("flat", flat), path);
  if (!device) {
    WARN("skipped: this kernel mounts no file, and there is no loop device");
    return false;
  }
  CHECK(mounting::mount_erofs(path, folder.mount_point(), "") == 0);
  return true;
}

void check_mount(Bytes const& image, std::vector<Bytes> const& devices, Rows const& expected) {
  mounting::Folder const folder;
  if (mounted(folder, image, devices)) check_rows(Mounted(folder.mount_point()).rows(), expected);
}

bool skipped() {
  static auto const why = mounting::why_no_mounts();
  if (!why.empty()) WARN(why);
  return !why.empty();
}

/// An archive in whole blocks, as a device is.
Bytes archive_of(std::string const& name) {
  auto bytes = read_data(name);
  bytes.resize((bytes.size() + 511) / 512 * 512);
  return bytes;
}

/// The names of the cases that are one small archive.
std::vector<nlohmann::json> cases() {
  std::vector<nlohmann::json> all;
  for (auto const& test : nlohmann::json::parse(as_text(read_data("cases.json")))) {
    auto const input = test.value("input", "");
    if (input.ends_with(".tar") || input == "in/bigdir.tar.gz") all.push_back(test);
  }
  return all;
}

/// Calls `check` with the archive of each case and what is built of it.
template <class F>
void for_each_layer(F const& check) {
  for (auto const& test : cases()) {
    INFO(test["name"]);
    std::vector<Bytes> const devices{archive_of(test["input"])};
    auto const built = build_layer(Memory(devices[0]));
    if (!built) FAIL(built.error().message());
    check(devices, *built);
  }
}

TEST_CASE("The kernel shows upstream's images as their manifests say", "[tarindex][kernel]") {
  if (skipped()) return;
  for (auto const& test : cases()) {
    INFO(test["name"]);
    auto const manifest = test["manifest"].get<std::string>().substr(sizeof "manifest");
    check_mount(read_data(test["image"]), {archive_of(test["input"])}, read_manifest(manifest));
  }
  check_mount(read_data("out/shared-xattr.erofs"), {}, read_manifest("shared-xattr.jsonl"));
}

TEST_CASE("The kernel shows a layer's image as its archive says", "[tarindex][kernel]") {
  if (skipped()) return;
  for_each_layer([](std::vector<Bytes> const& devices, auto const& built) {
    check_mount(built.tarindex, devices, Lister(built.layer.tree, devices, Show::overlay).rows());
  });
}

TEST_CASE("The kernel shows an image of one stored layer as the archive says",
          "[tarindex][merge][kernel]") {
  if (skipped()) return;
  for_each_layer([](std::vector<Bytes> const& devices, auto const& built) {
    // As a store has it: all that is left of the layer is its image.
    auto const reader = erofs::Reader<Memory>::open(Memory(built.tarindex));
    REQUIRE(reader);
    auto tree = erofs::load_tree(*reader, erofs::Marks::trusted);
    REQUIRE(tree);
    Layer const stored{*std::move(tree), built.layer.dangling, {}};
    std::vector<MergeInput> const alone{{&stored, device_of(built.index)}};
    auto const merged = merge(alone);
    REQUIRE(merged);
    auto const image = erofs::Writer::make(merged->tree, {device_of(built.index)});
    if (!image) FAIL(image.error().message());

    // Upstream's archives with whiteouts have nothing below that these could hide.
    Lister const expected(built.layer.tree, devices, Show::nothing);
    check_mount(image->to_bytes(), devices, expected.rows());
  });
}

TEST_CASE("The kernel shows what the image itself holds of sparse files", "[tarindex][kernel]") {
  if (skipped()) return;
  testing::TarMaker maker;
  maker.file("before", "b");
  add_sparse(maker, "odd", sparse_file({{1, 700}, {1500, 1}, {1501, 3000}, {50000, 1}}, 60000),
             SparseForm::pax10);
  // In chunks of several blocks, some in place, some not.
  add_sparse(maker, "large", sparse_file({{65536, 8192}, {3 << 20, 4097}, {5 << 20, 1}}, 9 << 20),
             SparseForm::pax01);
  auto archive = maker.file("after", "a").end().bytes();
  auto const built = build_layer(Memory(archive));
  if (!built) FAIL(built.error().message());
  std::vector<Bytes> const devices{archive};
  check_mount(built->tarindex, devices, Lister(built->layer.tree, devices, Show::overlay).rows());
}

}  // namespace kernel_test
}  // namespace erofs_oci::tarindex
