// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/host/choose_mount.hpp>  // first: proves that the header stands alone

#include <functional>
#include <string>
#include <vector>

#include <catch.hpp>

namespace erofs_oci {
namespace choose_mount_test {

using enum Presence;

/// A new kernel with everything, and root.
HostSupport full() {
  return {.kernel = {6, 18, 0},
          .nbd = present,
          .nbd_netlink = true,
          .erofs = present,
          .loop = present,
          .fuse = present,
          .fuse_device = true,
          .fusermount = true,
          .may_mount = true,
          .first_user_namespace = true};
}

HostSupport but(std::function<void(HostSupport&)> const& change) {
  auto host = full();
  change(host);
  return host;
}

struct Row {
  std::string what;
  HostSupport host;
  std::string chosen;  // "" = none
  std::string said;    // in the summary, or in the error
  std::vector<std::string> passed_over;
};

std::vector<Row> const rows{
    {"everything", full(), "netlink", "nbd is there, with netlink", {}},
    {"nbd as a module",
     but([](auto& h) {
       h.nbd = loadable;
       h.nbd_netlink = false;
     }),
     "netlink",
     "nbd can be loaded, with netlink",
     {}},
    {"another network namespace",
     but([](auto& h) { h.nbd_netlink = false; }),
     "ioctl",
     "nbd is there",
     {"not netlink: nbd's netlink family cannot be seen"}},
    {"no nbd",
     but([](auto& h) { h.nbd = absent; }),
     "fuse-file",
     "EROFS on a file that FUSE serves",
     {"not netlink: no nbd in this kernel", "not ioctl: no nbd in this kernel"}},
    {"no nbd, an older kernel",
     but([](auto& h) {
       h.nbd = absent;
       h.kernel = {6, 6, 50};
     }),
     "fuse-file",
     "EROFS on a loop device",
     {"not netlink", "not ioctl"}},
    {"no nbd, a kernel that panics",
     but([](auto& h) {
       h.nbd = absent;
       h.kernel = {6, 12, 1};
     }),
     "fuse-file",
     "EROFS on a loop device",
     {"not netlink", "not ioctl"}},
    {"no nbd, the first kernel that does not panic",
     but([](auto& h) {
       h.nbd = absent;
       h.loop = absent;
       h.kernel = {6, 12, 2};
     }),
     "fuse-file",
     "EROFS on a file",
     {"not netlink", "not ioctl"}},
    {"no nbd, a kernel that panics, no loop devices",
     but([](auto& h) {
       h.nbd = absent;
       h.loop = absent;
       h.kernel = {6, 12, 1};
     }),
     "fuse-tree",
     "files by FUSE",
     {"not netlink", "not ioctl", "not fuse-file: EROFS of Linux 6.12.1 needs a loop device"}},
    {"blocks of 512 bytes before 6.4",
     but([](auto& h) { h.kernel = {6, 3, 9}; }),
     "fuse-tree",
     "files by FUSE",
     {"not netlink: EROFS of Linux 6.3.9 cannot read blocks of 512 bytes, it needs 6.4.0",
      "not ioctl: EROFS of Linux 6.3.9", "not fuse-file: EROFS of Linux 6.3.9"}},
    {"no EROFS",
     but([](auto& h) { h.erofs = absent; }),
     "fuse-tree",
     "files by FUSE",
     {"not netlink: no EROFS in this kernel", "not ioctl: no EROFS", "not fuse-file: no EROFS"}},
    {"a plain user",
     but([](auto& h) { h.may_mount = false; }),
     "fuse-tree",
     "files by FUSE, for this user alone",
     {"not netlink: mounting EROFS needs root (CAP_SYS_ADMIN)", "not ioctl: mounting EROFS needs",
      "not fuse-file: mounting EROFS needs root"}},
    {"root of a user namespace",
     but([](auto& h) {
       h.first_user_namespace = false;
       h.fusermount = false;
     }),
     "fuse-tree",
     "files by FUSE",
     {"not netlink: mounting EROFS needs root outside of this user namespace", "not ioctl",
      "not fuse-file: mounting EROFS needs root outside"}},
    {"FUSE as a module",
     but([](auto& h) {
       h.nbd = absent;
       h.fuse = loadable;
       h.fuse_device = false;
     }),
     "fuse-file",
     "EROFS on a file",
     {"not netlink", "not ioctl"}},
    {"a plain user without fusermount3",
     but([](auto& h) {
       h.may_mount = false;
       h.fusermount = false;
     }),
     "",
     "fuse-tree: no fusermount3",
     {}},
    {"a plain user without /dev/fuse",
     but([](auto& h) {
       h.may_mount = false;
       h.fuse_device = false;
       h.fuse_errno = EACCES;
     }),
     "",
     "fuse-tree: /dev/fuse cannot be opened: Permission denied",
     {}},
    {"root without /dev/fuse and nbd",
     but([](auto& h) {
       h.nbd = absent;
       h.fuse_device = false;
     }),
     "",
     "fuse-file: /dev/fuse cannot be opened; fuse-tree: /dev/fuse cannot be opened",
     {}},
    {"nothing",
     {},
     "",
     "netlink: no nbd in this kernel; ioctl: no nbd in this kernel; fuse-file: no "
     "EROFS in this kernel; fuse-tree: no FUSE in this kernel",
     {}},
};

TEST_CASE("choose_mount takes the first way that is open, and says why", "[host][choose]") {
  auto const& row = GENERATE(from_range(rows));
  INFO(row.what);

  auto const choice = choose_mount(row.host);

  CHECK(choice.way == parse_mount_way(row.chosen));
  auto const result = choice.result();
  CHECK(result.has_value() == !row.chosen.empty());
  CHECK_THAT(result ? choice.summary() : result.error().message(), Catch::Contains(row.said));
  if (result) CHECK_THAT(choice.summary(), Catch::StartsWith(row.chosen + ": "));
  if (row.chosen.empty()) return;
  auto const lines = choice.passed_over();
  REQUIRE(lines.size() == row.passed_over.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    CHECK_THAT(lines[i], Catch::StartsWith(row.passed_over[i]));
  }
}

TEST_CASE("choose_mount takes the way that is asked for, or none", "[host][choose]") {
  auto const open = choose_mount(full(), MountWay::fuse_tree);
  auto const shut = choose_mount(but([](auto& h) { h.nbd = absent; }), MountWay::netlink);

  CHECK(open.result().value() == MountWay::fuse_tree);
  CHECK(open.summary() == "fuse-tree, as asked for: files by FUSE");
  CHECK(open.passed_over().empty());
  REQUIRE_FALSE(shut.result().has_value());
  CHECK(shut.result().error().code == Errc::unsupported);
  CHECK(shut.result().error().context == "cannot mount here: netlink: no nbd in this kernel");
}

TEST_CASE("choose_among leaves the ways alone that are not wanted", "[host][choose]") {
  std::vector const by_nbd{MountWay::netlink, MountWay::ioctl};
  std::vector const by_fuse{MountWay::fuse_file, MountWay::fuse_tree};
  auto const without_nbd = but([](auto& h) { h.nbd = absent; });

  CHECK(choose_among(by_nbd, full()).way == MountWay::netlink);
  CHECK(choose_among(by_nbd, but([](auto& h) { h.nbd_netlink = false; })).way == MountWay::ioctl);
  auto const shut = choose_among(by_nbd, without_nbd).result();
  REQUIRE_FALSE(shut.has_value());
  CHECK(shut.error().context ==
        "cannot mount here: netlink: no nbd in this kernel; ioctl: no nbd in this kernel");

  auto const open = choose_among(by_fuse, without_nbd);
  CHECK(open.way == MountWay::fuse_file);
  CHECK_FALSE(open.asked_for);
  CHECK(open.passed_over().empty());
  CHECK(choose_among(by_fuse, but([](auto& h) { h.may_mount = false; })).way ==
        MountWay::fuse_tree);
}

TEST_CASE("choose_mount knows what older kernels read", "[host][choose]") {
  auto const way = [](KernelVersion kernel, ImageNeeds image) {
    return choose_mount(but([&](auto& h) { h.kernel = kernel; }), {}, image).way;
  };

  CHECK(way({5, 16, 0}, {.block_size = 4096, .flat = false}) == MountWay::netlink);
  CHECK(way({5, 15, 9}, {.block_size = 4096, .flat = false}) == MountWay::fuse_tree);
  CHECK(way({6, 3, 0}, {.block_size = 4096, .flat = true}) == MountWay::fuse_tree);
  CHECK(way({6, 4, 0}, {.block_size = 512, .flat = true}) == MountWay::netlink);
}

TEST_CASE("Ways have names", "[host][choose]") {
  for (auto const way : all_mount_ways) CHECK(parse_mount_way(name_of(way)) == way);
  CHECK(parse_mount_way("auto") == std::nullopt);
}

}  // namespace choose_mount_test
}  // namespace erofs_oci
