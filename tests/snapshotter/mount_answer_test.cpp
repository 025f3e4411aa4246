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

TEST_CASE("The options that map owners are those of each answer", "[snapshotter][mount]") {
  Texts const mapping{"uidmap=0:1:2", "gidmap=0:3:4"};
  CHECK(mount_of({Kind::active, {}, "/u", "/w", mapping}, common) ==
        Mount{"bind", "/u", {"uidmap=0:1:2", "gidmap=0:3:4", "rw", "rbind"}});
  CHECK(mount_of({Kind::view, {"/a"}, "/u", "/w", mapping}, common) ==
        Mount{"bind", "/a", {"uidmap=0:1:2", "gidmap=0:3:4", "ro", "rbind"}});
  CHECK(mount_of({Kind::active, {"/a"}, "/u", "/w", mapping}, common) ==
        Mount{"overlay",
              "overlay",
              {"uidmap=0:1:2", "gidmap=0:3:4", "index=off", "workdir=/w", "upperdir=/u",
               "lowerdir=/a"}});
}

}  // namespace mount_answer_test
}  // namespace oci_snapshotter
