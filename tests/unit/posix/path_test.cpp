// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/path.hpp>  // first: proves that the header stands alone

#include <string>
#include <string_view>

#include <catch.hpp>

namespace erofs_oci {
namespace path_test {

TEST_CASE("An absolute path means the same from everywhere", "[posix][path]") {
  for (auto const* path : {"/", "/a", "/a b/..c/.d"}) CHECK(is_absolute_path(path));
  for (auto const* path : {"", "a", "./a", "//", "/a/", "/a//b", "/./a", "/a/..", "/../a"}) {
    CHECK_FALSE(is_absolute_path(path));
  }
  CHECK_FALSE(is_absolute_path(std::string_view("/a\0b", 4)));
  CHECK(is_absolute_path("/" + std::string(longest_path - 1, 'a')));
  CHECK_FALSE(is_absolute_path("/" + std::string(longest_path, 'a')));
}

TEST_CASE("The real path goes through symbolic links", "[posix][path]") {
  CHECK(real_path("/proc/../proc/self/root/.").value() == "/");
  CHECK(real_path("/no/such").error().code == std::errc::no_such_file_or_directory);
}

}  // namespace path_test
}  // namespace erofs_oci
