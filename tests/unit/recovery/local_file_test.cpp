// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/recovery/local_file.hpp>  // first: proves that the header stands alone

#include <filesystem>

#include <sys/stat.h>
#include <unistd.h>

#include <catch.hpp>
#include <scratch.hpp>

#include "support.hpp"

namespace erofs_oci {
namespace local_file_test {

namespace fs = std::filesystem;
using test::Scratch;
using testing::write_file;

TEST_CASE("A file is noted by its real path, size and content", "[recovery][local_file]") {
  Scratch const directory;
  write_file(directory / "x y", "content");
  fs::create_symlink("x y", directory / "link");
  auto const before = fs::current_path();
  fs::current_path(directory.path());
  auto const file = measure_file("./link");
  fs::current_path(before);

  REQUIRE(file.has_value());
  CHECK(file->path == fs::canonical(directory / "x y").string());
  CHECK(file->size == 7);
  CHECK(file->digest == digest_of(as_bytes("content")));
  auto const fd = open_unchanged(*file);  // from another directory
  REQUIRE(fd.has_value());
  Bytes bytes(8);
  CHECK(read_full(fd->get(), bytes).value() == 7);
}

TEST_CASE("A large file has the digest of all of it", "[recovery][local_file]") {
  Scratch const directory;
  auto const size = GENERATE(0U, 1U, 262143U, 262144U, 262145U, 1000000U);
  std::string content(size, 'x');
  for (std::size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * i / 7);
  write_file(directory / "f", content);

  auto const file = measure_file(directory / "f");

  CHECK(file.value().digest == digest_of(as_bytes(content)));
}

TEST_CASE("Another file in its place is refused", "[recovery][local_file][error]") {
  Scratch const directory;
  auto const path = directory / "f";
  write_file(path, "content");
  auto const file = measure_file(path).value();

  SECTION("of the same size") {
    write_file(path, "CONTENT");
    CHECK(open_unchanged(file).error().code == Errc::digest_mismatch);
  }
  SECTION("longer or shorter") {
    write_file(path, GENERATE("content and more", "conten", ""));
    CHECK(open_unchanged(file).error().code == Errc::mismatch);
  }
  SECTION("a symbolic link, even to the same") {
    fs::rename(path, directory / "g");
    fs::create_symlink(directory / "g", path);
    CHECK_FALSE(open_unchanged(file).has_value());
  }
  SECTION("nothing") {
    fs::remove(path);
    CHECK(open_unchanged(file).error().code == std::errc::no_such_file_or_directory);
  }
  SECTION("a FIFO, which is not waited for") {
    fs::remove(path);
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    CHECK(open_unchanged(file).error().code == Errc::unsupported);
  }
  SECTION("a directory") {
    fs::remove(path);
    fs::create_directory(path);
    CHECK(open_unchanged(file).error().code == Errc::unsupported);
  }
}

TEST_CASE("By content an equal copy passes, by stamp it does not", "[recovery][local_file]") {
  Scratch const directory;
  auto const path = directory / "f";
  write_file(path, "content");
  auto const by_content = measure_file(path).value();
  auto const by_stamp = measure_file(path, FileIdentity::stamp).value();
  CHECK_FALSE(by_stamp.digest.has_value());
  CHECK(open_unchanged(by_stamp).has_value());

  write_file(directory / "copy", "content");
  fs::rename(directory / "copy", path);

  CHECK(open_unchanged(by_content).has_value());
  CHECK(open_unchanged(by_stamp).error().code == Errc::mismatch);
}

TEST_CASE("By stamp a file that was written to is refused", "[recovery][local_file][error]") {
  Scratch const directory;
  auto const path = directory / "f";
  write_file(path, "content");
  auto const file = measure_file(path, FileIdentity::stamp).value();
  timespec const times[2] = {{1, 2}, {3, 4}};
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);

  CHECK(open_unchanged(file).error().code == Errc::mismatch);
}

TEST_CASE("What is no regular file cannot be noted", "[recovery][local_file][error]") {
  Scratch const directory;

  CHECK(measure_file(directory.path()).error().code == Errc::unsupported);
  CHECK(measure_file("/dev/null").error().code == Errc::unsupported);
  CHECK(measure_file(directory / "none").error().code == std::errc::no_such_file_or_directory);
}

}  // namespace local_file_test
}  // namespace erofs_oci
