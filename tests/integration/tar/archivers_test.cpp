// SPDX-License-Identifier: Apache-2.0
// Archives that GNU tar, bsdtar and Python make of a directory, read back and compared with the
// directory itself.
#include <catch.hpp>
#include <scratch.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <erofs_oci/source/local.hpp>

#include "../../unit/tarindex/sparse_archive.hpp"
#include "../../unit/tarindex/support.hpp"

namespace erofs_oci::tarindex {
namespace archivers_test {

namespace fs = std::filesystem;

/// How much of what a file can be an archive's format has room for.
struct Abilities {
  bool long_names = true;   ///< paths and targets beyond 100 bytes, names that ustar cannot cut
  bool devices = true;      ///< and FIFOs
  bool big_numbers = true;  ///< owners beyond 2^21
  bool before_1970 = true;  ///< times; bsdtar writes -86401.5 for -86400.5
  bool nanoseconds = false;
  bool xattrs = false;
  bool linked_symlinks = true;  ///< hard links to symbolic links
};

void write(fs::path const& path, std::string const& text) {
  std::ofstream(path, std::ios::binary) << text;
}

void set_time(fs::path const& path, std::int64_t seconds, long nanoseconds) {
  timespec const times[2] = {{0, 0}, {seconds, nanoseconds}};
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) == 0);
}

/// A file of 1 MiB with data at odd places.
void write_sparse(fs::path const& path, std::vector<std::pair<off_t, std::string>> const& pieces) {
  std::ofstream(path).close();
  REQUIRE(::truncate(path.c_str(), 1 << 20) == 0);
  std::fstream out(path, std::ios::binary | std::ios::in | std::ios::out);
  for (auto const& [offset, text] : pieces) {
    out.seekp(offset);
    out << text;
  }
}

void fill(fs::path const& root, Abilities const& can) {
  auto const is_root = ::geteuid() == 0;
  fs::create_directories(root / "dir/sub");
  for (auto const size : {0, 1, 511, 512, 513, 4096, 100003}) {
    write(root / "dir" / std::to_string(size), std::string(static_cast<std::size_t>(size), 's'));
  }
  write(root / "dir/new\nline", "n");
  write(root / "dir/ space 'quote' \\back\x01 ", "s");
  write(root / "dir/raw\xff\xfe", "r");
  write(root / "dir/setuid", "u");
  REQUIRE(::chmod((root / "dir/setuid").c_str(), 06751) == 0);
  REQUIRE(::chmod((root / "dir/sub").c_str(), 01777) == 0);
  fs::create_hard_link(root / "dir/513", root / "dir/sub/linked");
  fs::create_symlink("../dir/1", root / "dir/sub/symlink");
  if (can.linked_symlinks) fs::create_hard_link(root / "dir/sub/symlink", root / "dir/symlink-too");
  write_sparse(root / "sparse-odd", {{70000, "one"}, {300001, std::string(5000, '2')}});
  write_sparse(root / "sparse-ends", {{0, "first"}, {(1 << 20) - 4, "last"}});
  write_sparse(root / "sparse-empty", {});
  if (can.long_names) {
    auto const deep = root / std::string(80, 'd') / std::string(90, 'e') / std::string(95, 'f');
    fs::create_directories(deep);
    write(deep / "f", "deep");
    write(root / std::string(255, 'n'), "long");
    write(root / std::string(100, 'h'), "hundred");
    write(root / std::string(101, 'i'), "hundred and one");
    fs::create_hard_link(deep / "f", root / "to-deep");
    fs::create_symlink(std::string(1000, 't'), root / "long-target");
  }
  if (can.devices) {
    REQUIRE(::mkfifo((root / "fifo").c_str(), 0640) == 0);
    if (is_root) {
      REQUIRE(::mknod((root / "null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0);
      REQUIRE(::mknod((root / "disk").c_str(), S_IFBLK | 0660, makedev(259, 65537)) == 0);
    }
  }
  if (can.xattrs) {
    std::string const value("a\0b=\n", 5);
    auto const path = root / "dir/4096";
    if (::lsetxattr(path.c_str(), "user.raw", value.data(), value.size(), 0) == 0) {
      REQUIRE(::lsetxattr(path.c_str(), "user.empty", "", 0, 0) == 0);
    }
  }
  if (is_root && can.big_numbers) {
    REQUIRE(::lchown((root / "dir/1").c_str(), 3000000, 4000000000u) == 0);
  }
  if (is_root) REQUIRE(::lchown((root / "dir/0").c_str(), 1000, 1001) == 0);
  set_time(root / "dir/511", 1600000000, 123456789);
  if (can.big_numbers && can.before_1970) set_time(root / "dir/512", -86401, 500000000);
  set_time(root / "dir/sub/symlink", 1500000000, 0);
}

/// The directory as rows, with what `can` leaves out left out.
Rows list_disk(fs::path const& root, Abilities const& can) {
  Rows rows;
  auto const add = [&](fs::path const& path) {
    struct stat status{};
    REQUIRE(::lstat(path.c_str(), &status) == 0);
    auto const relative = "/" + path.lexically_relative(root).string();
    auto& row = rows[relative == "/." ? "/" : relative];
    row.mode = status.st_mode & 07777;
    row.uid = status.st_uid;
    row.gid = status.st_gid;
    row.mtime = status.st_mtim.tv_sec;
    row.nsec = can.nanoseconds ? static_cast<std::uint32_t>(status.st_mtim.tv_nsec) : 0;
    if (!S_ISDIR(status.st_mode)) row.nlink = static_cast<std::uint32_t>(status.st_nlink);
    if (S_ISREG(status.st_mode)) {
      row.type = "reg";
      row.size = static_cast<std::uint64_t>(status.st_size);
      row.sha256 = digest_of(read_file(path)).hex();
    } else if (S_ISLNK(status.st_mode)) {
      row.type = "lnk";
      row.target = fs::read_symlink(path).string();
      row.size = row.target.size();
    } else if (S_ISDIR(status.st_mode)) {
      row.type = "dir";
    } else {
      row.type = S_ISFIFO(status.st_mode) ? "fifo" : S_ISCHR(status.st_mode) ? "chr" : "blk";
      if (row.type != "fifo") {
        row.rdev =
            std::to_string(major(status.st_rdev)) + ":" + std::to_string(minor(status.st_rdev));
      }
    }
    if (!can.xattrs) return;
    for (auto const* const name : {"user.raw", "user.empty"}) {
      std::string value(64, '\0');
      auto const n = ::lgetxattr(path.c_str(), name, value.data(), value.size());
      if (n >= 0) row.xattrs[name] = value.substr(0, static_cast<std::size_t>(n));
    }
  };
  add(root);
  for (auto const& entry : fs::recursive_directory_iterator(root)) add(entry.path());
  return rows;
}

bool has(std::string const& program) {
  return std::system((program + " --version >/dev/null 2>&1").c_str()) == 0;
}

/// Makes a directory, archives it with `command` (%d: directory, %a: archive), and compares.
void round_trip(std::string command, Abilities const& can) {
  test::Scratch const scratch;
  fs::path const root = scratch / "tree";
  auto const archive = scratch / "archive.tar";
  fs::create_directory(root);
  fill(root, can);
  command.replace(command.find("%d"), 2, root.string());
  command.replace(command.find("%a"), 2, archive);
  INFO(command);
  REQUIRE(std::system(command.c_str()) == 0);
  auto source = Local::open(archive);
  REQUIRE(source);
  LayerBuilder builder;

  auto const reports = tar::for_each_entry(
      *source, [&](tar::Entry&& entry) { return builder.apply(std::move(entry)); });

  if (!reports) FAIL(reports.error().message());
  CHECK(reports->count() == 0);
  auto const layer = std::move(builder).finish();
  CHECK(layer.reports.count() == 0);
  CHECK(layer.dangling.empty());
  std::vector<Bytes> const archives{read_file(archive)};
  Lister const ours(layer.tree, archives, Show::nothing);
  CHECK(ours.implied().empty());
  check_rows(ours.rows(), list_disk(root, can));
}

constexpr auto few = Abilities{.long_names = false, .devices = false, .big_numbers = false};
constexpr auto some = Abilities{.long_names = false, .big_numbers = false};
constexpr auto most = Abilities{};
constexpr auto all = Abilities{.nanoseconds = true, .xattrs = true};

TEST_CASE("GNU tar's archives are read as the directory was", "[tar][integration]") {
  auto const [options, can] = GENERATE(table<std::string, Abilities>({
      {"--format=v7", few},
      {"--format=ustar", some},
      {"--format=oldgnu", most},
      {"--format=oldgnu -S", most},
      {"--format=gnu", most},
      {"--format=gnu -S", most},
      {"--format=gnu -S --hole-detection=raw", most},
      {"--format=gnu --label=volume", most},
      {"--format=posix --xattrs --xattrs-include='*'", all},
      {"--format=posix --xattrs -S --sparse-version=0.0", all},
      {"--format=posix --xattrs -S --sparse-version=0.1", all},
      {"--format=posix --xattrs -S --sparse-version=1.0", all},
      {"--format=posix --xattrs -S --hole-detection=raw", all},
  }));
  if (options.find("--label") == std::string::npos) {
    round_trip("tar " + options + " -C %d -cf %a .", can);
  } else {  // the label is passed over, and said so
    test::Scratch const scratch;
    auto const archive = scratch / "a.tar";
    REQUIRE(std::system(
                ("tar " + options + " -C / -cf " + archive + " --files-from /dev/null").c_str()) >=
            0);
    auto source = Local::open(archive);
    REQUIRE(source);
    auto const reports =
        tar::for_each_entry(*source, [](tar::Entry&&) -> Result<void> { return {}; });
    REQUIRE(reports);
    CHECK(reports->count() == 1);
  }
}

TEST_CASE("bsdtar's archives are read as the directory was", "[tar][integration]") {
  if (!has("bsdtar")) {
    std::cout << "skipped: no bsdtar\n";
    return;
  }
  auto const [format, enough] = GENERATE(table<std::string, Abilities>(
      {{"ustar", some}, {"gnutar", most}, {"pax", all}, {"v7", few}}));
  auto can = enough;
  can.before_1970 = false;
  round_trip("bsdtar --format=" + format + " -C %d -cf %a .", can);
}

TEST_CASE("Python's archives are read as the directory was", "[tar][integration]") {
  if (!has("python3")) {
    std::cout << "skipped: no python3\n";
    return;
  }
  auto const [format, enough] =
      GENERATE(table<std::string, Abilities>({{"USTAR", some}, {"GNU", most}, {"PAX", most}}));
  auto can = enough;
  can.linked_symlinks = false;
  round_trip(
      "python3 -c 'import sys, tarfile\n"
      "t = tarfile.open(sys.argv[2], \"w\", format=tarfile." +
          format +
          "_FORMAT)\n"
          "def whole(m):\n"
          "  m.mtime = int(m.mtime // 1)\n"
          "  return m\n"
          "t.add(sys.argv[1], \".\", filter=whole)\n"
          "t.close()' %d %a",
      can);
}

TEST_CASE("GNU tar and bsdtar unpack odd sparse files as we read them", "[tar][integration]") {
  auto const program = GENERATE(as<std::string>{}, "tar", "bsdtar");
  auto const form =
      GENERATE(SparseForm::gnu, SparseForm::pax00, SparseForm::pax01, SparseForm::pax10);
  if (!has(program)) {
    std::cout << "skipped: no " << program << '\n';
    return;
  }
  // GNU tar reads each segment from a new block of the archive, as it writes them: those that it
  // makes are whole blocks but for the last. Go, bsdtar and we read on where the last one ended.
  auto const file =
      program == "tar"
          ? sparse_file({{1, 512}, {513, 0}, {1500, 1024}, {9001, 512}, {50000, 1}, {60000, 0}},
                        60000)
          : sparse_file(
                {{1, 700}, {701, 0}, {1500, 1}, {1501, 3000}, {9000, 1000}, {50000, 1}, {60000, 0}},
                60000);
  testing::TarMaker maker;
  add_sparse(maker, "s", file, form);
  test::Scratch const scratch;
  auto const archive = scratch / "a.tar";
  write(archive, std::string(as_text(maker.end().bytes())));

  REQUIRE(std::system((program + " -C " + scratch.path() + " -xf " + archive).c_str()) == 0);

  auto const unpacked = read_file(scratch / "s");
  CAPTURE(program, static_cast<int>(form), unpacked.size(), file.content.size());
  auto const equal = unpacked == file.content;
  CHECK(equal);
  auto const layer = layer_of(maker.bytes());
  REQUIRE(layer);
  Lister const ours(layer->tree, {maker.bytes()}, Show::nothing);
  CHECK(ours.rows().at("/s").sha256 == digest_of(file.content).hex());
}

}  // namespace archivers_test
}  // namespace erofs_oci::tarindex
