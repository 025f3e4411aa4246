// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/temporary_directory.hpp>  // first: proves that the header stands alone

#include <sys/stat.h>

#include <catch.hpp>

namespace erofs_oci {
namespace temporary_directory_test {

bool is_there(std::string const& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0;
}

TEST_CASE("A temporary directory is its owner's and goes with its object",
          "[posix][temporary_directory]") {
  std::string path;
  {
    auto directory = TemporaryDirectory::make("/tmp/erofs_oci-test-").value();
    auto const moved = std::move(directory);
    path = moved.path();
    struct stat status{};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    CHECK((status.st_mode & 07777) == 0700);
  }
  CHECK_FALSE(is_there(path));
}

TEST_CASE("A temporary directory stays if it was released or is in use",
          "[posix][temporary_directory]") {
  auto const kept = TemporaryDirectory::make("/tmp/erofs_oci-test-").value().release();
  CHECK(is_there(kept));
  auto const inner = TemporaryDirectory::make(kept + "/").value().release();
  CHECK(is_there(inner));
  ::rmdir(inner.c_str());
  ::rmdir(kept.c_str());
  CHECK(TemporaryDirectory::make("/no/such/").error().code == std::errc::no_such_file_or_directory);
}

}  // namespace temporary_directory_test
}  // namespace erofs_oci
