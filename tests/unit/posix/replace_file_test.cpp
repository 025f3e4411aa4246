// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/replace_file.hpp>  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/posix/text_file.hpp>

namespace erofs_oci {
namespace replace_file_test {

/// What is in a directory.
std::vector<std::string> names_in(test::Scratch const& folder) {
  std::vector<std::string> found;
  for (auto const& entry : std::filesystem::directory_iterator(folder.path())) {
    found.push_back(entry.path().filename().string());
  }
  return found;
}

auto writes(std::string const& text) {
  return [text](int fd) { return write_full(fd, as_bytes(text)); };
}

TEST_CASE("A file is made, and replaced with what a crash has left beside it",
          "[posix][replace_file]") {
  test::Scratch const folder;
  auto const path = folder / "file";

  REQUIRE(replace_file(path, 0640, writes("old")).has_value());
  CHECK(read_text_file(path).value() == "old");
  struct stat status{};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0600) == 0600);
  CHECK((status.st_mode & 0007) == 0);

  std::ofstream(path + ".part") << "half of something long";
  REQUIRE(replace_file(path, 0600, writes("new")).has_value());
  CHECK(read_text_file(path).value() == "new");
  CHECK(names_in(folder) == std::vector<std::string>{"file"});
}

TEST_CASE("A file keeps its content when writing fails", "[posix][replace_file][error]") {
  test::Scratch const folder;
  auto const path = folder / "file";
  REQUIRE(replace_file(path, 0600, writes("old")).has_value());

  auto const failed = replace_file(path, 0600, [](int fd) -> Result<void> {
    EROFS_OCI_TRY(write_full(fd, as_bytes(std::string("half"))));
    return fail_errno(ENOSPC, "write");
  });

  REQUIRE_FALSE(failed.has_value());
  CHECK(failed.error().code == std::errc::no_space_on_device);
  CHECK(failed.error().context == "file.part: write");
  CHECK(read_text_file(path).value() == "old");
  CHECK(names_in(folder) == std::vector<std::string>{"file"});
}

TEST_CASE("What cannot be replaced leaves nothing behind", "[posix][replace_file][error]") {
  test::Scratch const folder;
  std::filesystem::create_directory(folder / "directory");

  CHECK_FALSE(replace_file(folder / "directory", 0600, writes("x")).has_value());
  CHECK(names_in(folder) == std::vector<std::string>{"directory"});
  CHECK(replace_file(folder / "none/file", 0600, writes("x")).error().code ==
        std::errc::no_such_file_or_directory);
}

TEST_CASE("No symbolic link is written through", "[posix][replace_file]") {
  test::Scratch const folder;
  std::ofstream(folder / "aim") << "aim";
  std::filesystem::create_symlink("aim", folder / "file.part");
  std::filesystem::create_symlink("aim", folder / "file");

  REQUIRE(replace_file(folder / "file", 0600, writes("new")).has_value());
  CHECK(read_text_file(folder / "aim").value() == "aim");
  CHECK(read_text_file(folder / "file").value() == "new");
  CHECK_FALSE(std::filesystem::is_symlink(folder / "file"));
}

TEST_CASE("A missing name is removed without an error", "[posix][replace_file]") {
  test::Scratch const folder;
  auto const directory = open_read(folder.path(), O_DIRECTORY).value();

  CHECK(remove_at(directory.get(), "none").has_value());
  CHECK(rename_at(directory.get(), "none", "other").error().code ==
        std::errc::no_such_file_or_directory);
}

}  // namespace replace_file_test
}  // namespace erofs_oci
