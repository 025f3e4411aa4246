// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/device.hpp>  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>

#include <catch.hpp>
#include <scratch.hpp>

namespace erofs_oci {
namespace device_test {

/// A directory that looks like /sys/block.
class FakeSysfs {
 public:
  void put(std::string const& file, std::string const& text) const {
    auto const path = std::filesystem::path(scratch_ / file);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  [[nodiscard]] std::string const& root() const { return scratch_.path(); }

 private:
  test::Scratch scratch_;
};

TEST_CASE("Devices are found by number, and nothing else is", "[nbd][device]") {
  FakeSysfs const sysfs;
  for (auto const* name :
       {"nbd10", "nbd2", "nbd0", "nbd", "nbd1p1", "sda", "nbdx", "nbd99999999"}) {
    sysfs.put(std::string(name) + "/size", "0\n");
  }

  CHECK(nbd_devices(sysfs.root()) == std::vector<std::uint32_t>{0, 2, 10});
  CHECK(nbd_devices(sysfs.root() + "/none").empty());
}

TEST_CASE("A device's path has its number", "[nbd][device]") {
  CHECK(nbd_index_of_path(nbd_device_path(12)) == 12);
  CHECK_FALSE(nbd_index_of_path("/dev/nbd").has_value());
  CHECK_FALSE(nbd_index_of_path("/dev/nbd1p1").has_value());
  CHECK_FALSE(nbd_index_of_path("/dev/sda").has_value());
}

TEST_CASE("A device with a process or a backend is not free", "[nbd][device]") {
  FakeSysfs const sysfs;
  sysfs.put("nbd0/size", "0\n");
  sysfs.put("nbd1/pid", "123\n");
  sysfs.put("nbd2/backend", "\n");

  CHECK(nbd_looks_free(0, sysfs.root()));
  CHECK_FALSE(nbd_looks_free(1, sysfs.root()));
  CHECK_FALSE(nbd_looks_free(2, sysfs.root()));
  CHECK(nbd_attribute(1, "pid", sysfs.root()).value() == "123");
  CHECK(nbd_attribute(0, "pid", sysfs.root()).error().code == std::errc::no_such_file_or_directory);
}

TEST_CASE("Read ahead is set through sysfs", "[nbd][device]") {
  FakeSysfs const sysfs;
  sysfs.put("nbd3/queue/read_ahead_kb", "");

  CHECK(set_nbd_read_ahead(3, 1024, sysfs.root()).has_value());

  CHECK(nbd_attribute(3, "queue/read_ahead_kb", sysfs.root()).value() == "1024");
  CHECK(set_nbd_read_ahead(4, 1024, sysfs.root()).error().code ==
        std::errc::no_such_file_or_directory);
}

TEST_CASE("Options that no device can have are refused", "[nbd][device][error]") {
  Export const good{.size = 1'024'000};

  CHECK(check({}, good).has_value());
  CHECK(check({.block_size = 4096}, good).has_value());
  CHECK(check({.sockets = 2, .request_timeout = std::chrono::seconds(90)}, good).has_value());
  for (auto const& bad : {NbdDeviceOptions{.block_size = 0}, NbdDeviceOptions{.block_size = 256},
                          NbdDeviceOptions{.block_size = 1000}, NbdDeviceOptions{.sockets = 0},
                          NbdDeviceOptions{.sockets = 2}}) {
    CHECK_FALSE(check(bad, good));
  }
  CHECK_FALSE(check({.block_size = 1U << 20}, {.size = 1U << 21}));  // longer than a page
  CHECK(check({}, {.size = 0}).error().code == Errc::invalid_argument);
  CHECK(check({}, {.size = 1'024'001}).error().message().find("1024001") != std::string::npos);
}

}  // namespace device_test
}  // namespace erofs_oci
