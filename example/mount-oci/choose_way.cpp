// SPDX-License-Identifier: Apache-2.0
#include "choose_way.hpp"

#include <optional>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/fuse/host_support.hpp>

namespace mount_oci {
namespace {

using erofs_oci::HostSupport;
using erofs_oci::MountWay;
using erofs_oci::Presence;

std::vector<MountWay> ways_of(Attach wanted) {
  switch (wanted) {
    case Attach::automatic: break;
    case Attach::nbd: return {MountWay::netlink, MountWay::ioctl};
    case Attach::netlink: return {MountWay::netlink};
    case Attach::ioctl: return {MountWay::ioctl};
    case Attach::fuse: return {MountWay::fuse_file, MountWay::fuse_tree};
    case Attach::fuse_file: return {MountWay::fuse_file};
    case Attach::fuse_tree: return {MountWay::fuse_tree};
  }
  return {erofs_oci::all_mount_ways.begin(), erofs_oci::all_mount_ways.end()};
}

/// Loads the kernel's nbd driver; whether it is there is seen afterwards.
void load_nbd_module() {
  auto const child = ::fork();
  if (child == 0) {
    ::execlp("modprobe", "modprobe", "-q", "nbd", static_cast<char*>(nullptr));
    ::_exit(127);
  }
  if (child > 0) ::waitpid(child, nullptr, 0);
}

bool by_nbd(std::optional<MountWay> way) {
  return way == MountWay::netlink || way == MountWay::ioctl;
}

}  // namespace

Result<MountWay> choose_way(Attach wanted, erofs_oci::ImageNeeds const& image, Log const& log) {
  auto const ways = ways_of(wanted);
  auto host = erofs_oci::probe_host();
  auto choice = erofs_oci::choose_among(ways, host, image);
  if (by_nbd(choice.way) && host.nbd == Presence::loadable) {
    load_nbd_module();
    host = erofs_oci::probe_host();
    choice = erofs_oci::choose_among(ways, host, image);
  }
  for (auto const& line : choice.passed_over()) log.say(Level::info, line);
  if (choice.way)
    log.say(wanted == Attach::automatic ? Level::notice : Level::info, choice.summary());
  return choice.result();
}

}  // namespace mount_oci
