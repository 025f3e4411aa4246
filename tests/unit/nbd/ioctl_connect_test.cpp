// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/ioctl_connect.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

namespace erofs_oci {
namespace ioctl_connect_test {

TEST_CASE("IoctlConnect refuses a size that the kernel would cut", "[nbd][ioctl_connect][error]") {
  IoctlConnect connect;

  CHECK(connect.attach({.size = 1000}, {}).error().code == Errc::invalid_argument);
}

TEST_CASE("IoctlConnect says what to load where there is no nbd", "[nbd][ioctl_connect][error]") {
  if (!nbd_devices().empty()) return;  // a machine with nbd: it is not ours to use
  IoctlConnect connect;

  auto const sockets = connect.attach({.size = 1024}, {});

  REQUIRE_FALSE(sockets.has_value());
  CHECK(sockets.error().code == Errc::unsupported);
  CHECK(sockets.error().message().find("modprobe nbd") != std::string::npos);
}

TEST_CASE("IoctlConnect leaves the kernel's sockets as they are", "[nbd][ioctl_connect]") {
  auto const negotiated = IoctlConnect().negotiate(-1, {}, {});

  REQUIRE(negotiated.has_value());
  REQUIRE(negotiated->has_value());
  CHECK_FALSE((*negotiated)->structured);
  CHECK((*negotiated)->send_timeout.count() == 0);
}

}  // namespace ioctl_connect_test
}  // namespace erofs_oci
