// SPDX-License-Identifier: Apache-2.0
#include "mount_answer.hpp"  // first: proves that the header stands alone

#include <catch.hpp>

namespace oci_snapshotter {
namespace mount_answer_test {

using Texts = std::vector<std::string>;

Texts const common{"index=off"};

TEST_CASE("A snapshot without a parent is its own directory", "[snapshotter][mount]") {
  CHECK(mount_of({Kind::active, {}, "/u", "/w"}, common) == Mount{"bind", "/u", {"rw", "rbind"}});
  CHECK(mount_of({Kind::view, {}, "/u", "/w"}, common) == Mount{"bind", "/u", {"ro", "rbind"}});
}

TEST_CASE("An active snapshot is an overlay, whose top comes first", "[snapshotter][mount]") {
  CHECK(mount_of({Kind::active, {"/b", "/a"}, "/u", "/w"}, common) ==
        Mount{"overlay", "overlay", {"index=off", "workdir=/w", "upperdir=/u", "lowerdir=/b:/a"}});
}

TEST_CASE("A view cannot be written", "[snapshotter][mount]") {
  CHECK(mount_of({Kind::view, {"/a"}, "/u", "/w"}, common) == Mount{"bind", "/a", {"ro", "rbind"}});
  CHECK(mount_of({Kind::view, {"/b", "/a"}, "/u", "/w"}, common) ==
        Mount{"overlay", "overlay", {"index=off", "lowerdir=/b:/a"}});
}

}  // namespace mount_answer_test
}  // namespace oci_snapshotter
