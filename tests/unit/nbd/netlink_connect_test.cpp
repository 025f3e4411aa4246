// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/netlink_connect.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

namespace erofs_oci {
namespace netlink_connect_test {

TEST_CASE("NetlinkConnect refuses a size that the kernel would cut",
          "[nbd][netlink_connect][error]") {
  NetlinkConnect connect;

  CHECK(connect.attach({.size = 1000}, {}).error().code == Errc::invalid_argument);
}

TEST_CASE("NetlinkConnect says what to load where there is no nbd",
          "[nbd][netlink_connect][error]") {
  if (!nbd_devices().empty()) return;  // a machine with nbd: it is not ours to use
  NetlinkConnect connect;

  auto const sockets = connect.attach({.size = 1024}, {});

  REQUIRE_FALSE(sockets.has_value());
  CHECK(sockets.error().code == Errc::unsupported);
  CHECK(sockets.error().message().find("modprobe nbd") != std::string::npos);
}

TEST_CASE("NetlinkConnect leaves the kernel's sockets as they are", "[nbd][netlink_connect]") {
  auto const negotiated = NetlinkConnect().negotiate(-1, {}, {});

  REQUIRE(negotiated.has_value());
  REQUIRE(negotiated->has_value());
  CHECK_FALSE((*negotiated)->structured);
  CHECK((*negotiated)->send_timeout.count() == 0);
}

}  // namespace netlink_connect_test
}  // namespace erofs_oci
