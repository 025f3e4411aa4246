// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/host/unmount.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

namespace erofs_oci {
namespace unmount_test {

TEST_CASE("Unmounting what is not mounted is an error", "[host][unmount][error]") {
  auto const done = unmount("/no/such/directory", UnmountBusy::refuse);

  REQUIRE_FALSE(done.has_value());
  CHECK_THAT(done.error().message(), Catch::Contains("/no/such/directory"));
}

TEST_CASE("Values of mount options cannot end early", "[host][unmount]") {
  CHECK(escape_mount_option("/a b:c") == "/a b:c");
  CHECK(escape_mount_option("a,suid\\") == "a\\,suid\\\\");
}

}  // namespace unmount_test
}  // namespace erofs_oci
