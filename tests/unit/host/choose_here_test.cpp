// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/host/choose_here.hpp>  // first: proves that the header stands alone

#include <array>

#include <catch.hpp>

namespace erofs_oci {
namespace choose_here_test {

TEST_CASE("This machine's choice is that of what it has", "[host][choose_here]") {
  std::array const by_fuse{MountWay::fuse_file, MountWay::fuse_tree};
  auto const expected = choose_among(by_fuse, probe_host());
  auto const chosen = choose_here(by_fuse);
  CHECK(chosen.way == expected.way);
  CHECK(chosen.summary() == expected.summary());
  CHECK_FALSE(choose_here({}).way.has_value());
  ImageNeeds const impossible{.block_size = 512, .flat = false};
  auto const any = choose_here(all_mount_ways, impossible);
  CHECK(any.way == choose_among(all_mount_ways, probe_host(), impossible).way);
}

}  // namespace choose_here_test
}  // namespace erofs_oci
