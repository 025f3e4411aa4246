// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/trusted_file.hpp>  // first: proves that the header stands alone

#include <string>

#include <sys/stat.h>
#include <unistd.h>

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/posix/temporary_directory.hpp>

namespace erofs_oci {
namespace trusted_file_test {

/// A file in a directory of its own.
struct File {
  explicit File(mode_t mode) {
    UniqueFd const fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    REQUIRE(write_full(fd.get(), as_bytes("text")).has_value());
    REQUIRE(::fchmod(fd.get(), mode) == 0);
  }
  ~File() { ::unlink(path.c_str()); }

  TemporaryDirectory directory = TemporaryDirectory::make("/tmp/erofs_oci-test-").value();
  std::string path = directory.path() + "/file";
};

TEST_CASE("A file that other users can write is not used by root", "[posix][trusted_file]") {
  auto const owner = ::geteuid();
  for (mode_t const mode : {0600u, 0644u, 0664u, 0646u}) {
    File const file(mode);
    auto const others_write = (mode & 022) != 0;

    auto const by_owner = read_trusted_file(file.path, 100, owner == 0 ? 1 : owner);
    auto const by_root = read_trusted_file(file.path, 100, 0);

    REQUIRE(by_owner.has_value());
    CHECK(by_owner->text == "text");
    CHECK((by_owner->mode & 0777) == mode);
    CHECK(by_root.has_value() == (owner == 0 && !others_write));
    if (by_root) continue;
    CHECK(by_root.error().code == std::errc::operation_not_permitted);
    CHECK_THAT(by_root.error().context, Catch::Contains(file.path));
  }
}

TEST_CASE("A file of another user is not used by root", "[posix][trusted_file]") {
  if (::geteuid() != 0) return;
  File const file(0600);
  REQUIRE(::chown(file.path.c_str(), 1, 0) == 0);

  auto const read = read_trusted_file(file.path, 100, 0);

  REQUIRE_FALSE(read.has_value());
  CHECK_THAT(read.error().context, Catch::Contains("belongs to user 1"));
}

TEST_CASE("What is no file is refused and holds nobody up", "[posix][trusted_file][error]") {
  auto const directory = TemporaryDirectory::make("/tmp/erofs_oci-test-").value();
  auto const pipe = directory.path() + "/pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);

  CHECK(read_trusted_file(pipe).error().code == Errc::invalid_argument);
  CHECK(read_trusted_file(directory.path()).error().code == Errc::invalid_argument);
  ::unlink(pipe.c_str());
}

}  // namespace trusted_file_test
}  // namespace erofs_oci
