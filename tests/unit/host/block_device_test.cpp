// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/host/block_device.hpp>  // first: proves that the header stands alone

#include <string>
#include <thread>

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <catch.hpp>
#include <scratch.hpp>

namespace erofs_oci {
namespace block_device_test {

using namespace std::chrono_literals;

TEST_CASE("Only a block device is one", "[host][block_device][error]") {
  CHECK(block_device("/dev/null").error().code.value() == ENOTBLK);
  CHECK(block_device("/no/such").error().code == std::errc::no_such_file_or_directory);
  CHECK(wait_for_block_device("/dev/null", 1ms).error().code.value() == ENOTBLK);
}

TEST_CASE("A block device may come later", "[host][block_device]") {
  if (::geteuid() != 0) {
    WARN("skipped: not root");
    return;
  }
  test::Scratch const scratch;
  auto const path = scratch / "device";
  auto const number = ::makedev(7, 250);
  std::jthread const later([&] {
    std::this_thread::sleep_for(20ms);
    ::mknod(path.c_str(), S_IFBLK | 0600, number);
  });
  CHECK(wait_for_block_device(path).has_value());
  CHECK(block_device(path).value() == number);
}

}  // namespace block_device_test
}  // namespace erofs_oci
