// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/text_file.hpp>  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>
#include <string>

#include <unistd.h>

#include <catch.hpp>

namespace erofs_oci {
namespace text_file_test {

TEST_CASE("Small files are read whole, up to a limit", "[posix][text_file][error]") {
  auto const path =
      std::filesystem::temp_directory_path() / ("erofs_oci-text-" + std::to_string(::getpid()));
  std::string const text(40'000, 'x');
  std::ofstream(path) << text;

  CHECK(read_text_file(path).value() == text);
  CHECK(read_text_file(path, 40'000).value() == text);
  CHECK(read_text_file(path, 39'999).error().code == std::errc::file_too_large);
  CHECK(read_text(open_read(path).value(), "name", 40'000).value() == text);
  CHECK(read_text(open_read(path).value(), "name", 39'999).error().context == "name");
  CHECK(read_text_file(path.string() + "-not").error().code ==
        std::errc::no_such_file_or_directory);
  CHECK(write_text_file(path, "yyy").has_value());
  CHECK(read_text_file(path).value().substr(0, 4) == "yyyx");
  std::filesystem::remove(path);
}

TEST_CASE("A value ends before its newlines", "[posix][text_file]") {
  auto const text = read_text_file("/proc/self/comm").value();
  CHECK(read_text_value("/proc/self/comm").value() + "\n" == text);
}

}  // namespace text_file_test
}  // namespace erofs_oci
