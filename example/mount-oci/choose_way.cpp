// SPDX-License-Identifier: Apache-2.0
#include "choose_way.hpp"

#include <string>
#include <vector>

#include <erofs_oci/host/choose_here.hpp>

namespace mount_oci {
namespace {

using erofs_oci::MountWay;

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

}  // namespace

Result<erofs_oci::MountChoice> choose_way(Attach wanted, erofs_oci::ImageNeeds const& image,
                                          Log const& log) {
  auto const ways = ways_of(wanted);
  auto const choice = erofs_oci::choose_here(ways, image);
  for (auto const& line : choice.passed_over()) log.say(Level::info, line);
  EROFS_OCI_TRY(choice.result());
  return choice;
}

}  // namespace mount_oci
