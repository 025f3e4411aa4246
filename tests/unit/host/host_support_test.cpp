// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/host/host_support.hpp>  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>
#include <string>

#include <catch.hpp>

namespace erofs_oci {
namespace host_support_test {

TEST_CASE("Kernel versions are read from what uname says", "[host]") {
  CHECK(parse_kernel_version("6.12.3-1-amd64") == KernelVersion{6, 12, 3});
  CHECK(parse_kernel_version("6.18.44-fc-v669") == KernelVersion{6, 18, 44});
  CHECK(parse_kernel_version("6.12-rc1") == KernelVersion{6, 12, 0});
  CHECK(parse_kernel_version("5.10.0-23-cloud-amd64") == KernelVersion{5, 10, 0});
  CHECK(parse_kernel_version("6.12.x") == KernelVersion{6, 12, 0});
  CHECK_FALSE(parse_kernel_version("6"));
  CHECK_FALSE(parse_kernel_version("six.one"));
  CHECK_FALSE(parse_kernel_version(""));
  CHECK(KernelVersion{6, 9, 9} < KernelVersion{6, 12, 0});
  CHECK(running_kernel() > KernelVersion{2, 6, 0});
}

TEST_CASE("File-backed EROFS is not tried where it panics", "[host]") {
  CHECK_FALSE(file_backed_is_safe({6, 11, 9}));
  CHECK_FALSE(file_backed_is_safe({6, 12, 0}));
  CHECK_FALSE(file_backed_is_safe({6, 12, 1}));
  CHECK(file_backed_is_safe({6, 12, 2}));
  CHECK(file_backed_is_safe({6, 13, 0}));
}

TEST_CASE("File systems are found by their whole name", "[host]") {
  std::string const text = "nodev\tsysfs\nnodev\tfuse\n\tfuseblk\n\terofs\n";

  CHECK(detail::names_file_system(text, "erofs"));
  CHECK(detail::names_file_system(text, "fuse"));
  CHECK_FALSE(detail::names_file_system(text, "fus"));
  CHECK_FALSE(detail::names_file_system(text, "ext4"));
  CHECK_FALSE(detail::names_file_system("", "erofs"));
}

TEST_CASE("Modules are found by their own line", "[host]") {
  std::string const text =
      "kernel/drivers/block/nbd.ko.xz: kernel/lib/x.ko.xz\n"
      "kernel/fs/erofs/erofs.ko: kernel/lib/libcrc32c.ko kernel/fs/netfs/netfs.ko\n"
      "kernel/fs/fuse/fuse.ko\n";

  CHECK(detail::names_module(text, "nbd"));
  CHECK(detail::names_module(text, "erofs"));
  CHECK(detail::names_module(text, "fuse"));
  CHECK_FALSE(detail::names_module(text, "netfs"));  // only needed by another
  CHECK_FALSE(detail::names_module(text, "nb"));
  CHECK_FALSE(detail::names_module(text, "use"));
  CHECK_FALSE(detail::names_module("", "nbd"));
}

TEST_CASE("The first user namespace maps everybody", "[host]") {
  CHECK(detail::maps_all_users("         0          0 4294967295\n"));
  CHECK_FALSE(detail::maps_all_users("         0       1000          1\n"));
  CHECK_FALSE(detail::maps_all_users(""));
}

TEST_CASE("Programs are looked for in PATH", "[host]") {
  CHECK(in_path("sh", "/nowhere:/bin:/usr/bin"));
  CHECK_FALSE(in_path("sh", "/nowhere"));
  CHECK_FALSE(in_path("no-such-program", nullptr));
}

TEST_CASE("The kernel is asked for netlink families", "[host]") {
  if (!detail::has_netlink_family("nlctrl")) {
    WARN("skipped: no generic netlink here");
    return;
  }
  CHECK_FALSE(detail::has_netlink_family("no_such_one"));
  CHECK_FALSE(detail::has_netlink_family("a_name_longer_than_any"));
}

TEST_CASE("probe_host agrees with the plain signs", "[host]") {
  auto const host = probe_host();

  CHECK(host.kernel == running_kernel());
  CHECK((host.nbd == Presence::present) == std::filesystem::exists("/sys/module/nbd"));
  if (host.nbd != Presence::present) CHECK_FALSE(host.nbd_netlink);
  CHECK(host.fuse_device == (::access("/dev/fuse", R_OK | W_OK) == 0));
  if (::geteuid() != 0) CHECK_FALSE(host.may_mount);
}

}  // namespace host_support_test
}  // namespace erofs_oci
