// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/posix/host_port.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

namespace erofs_oci {
namespace host_port_test {

TEST_CASE("Hosts and ports are taken apart and put together", "[posix][host_port]") {
  for (auto const* text : {"localhost:0", "0.0.0.0:10809", "[::1]:65535"}) {
    CHECK(HostPort::parse(text).value().text() == text);
  }
  CHECK(HostPort::parse("[::1]:80").value() == HostPort{"::1", 80});
  CHECK(HostPort::parse(":80", "127.0.0.1").value() == HostPort{"127.0.0.1", 80});
}

TEST_CASE("What is no host and port is refused", "[posix][host_port][error]") {
  for (auto const* text : {"", ":", "host", "host:", ":80", "::1:80", "[]:80", "[::1]", "a:-1",
                           "a:+1", "a: 1", "a:1x", "a:65536", "127.0.0.1:99999"}) {
    INFO(text);
    CHECK(HostPort::parse(text).error().code == Errc::invalid_argument);
  }
}

}  // namespace host_port_test
}  // namespace erofs_oci
