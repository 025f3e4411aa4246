// SPDX-License-Identifier: Apache-2.0
#include "id_mapping.hpp"  // first: proves that the header stands alone

#include <catch.hpp>

#include "refusal.hpp"

namespace oci_snapshotter {
namespace id_mapping_test {

using mount_oci::MountEntry;

IdMapping mapping_of(std::string const& users, std::string const& groups) {
  return IdMapping::of({{user_mapping_label, users}, {group_mapping_label, groups}})
      .value()
      .value();
}

MountEntry entry(std::string target, std::string type) {
  MountEntry out;
  out.target = std::move(target);
  out.type = std::move(type);
  return out;
}

TEST_CASE("Ranges are numbers of 32 bits", "[snapshotter][ids]") {
  CHECK(parse_id_ranges("0:1000:1,1:100000:65535").value() ==
        std::vector<IdRange>{{0, 1000, 1}, {1, 100000, 65535}});
  auto const wrong =
      GENERATE("", "0", "0:1", "0:1:", "0:1:2:3", "0:1:0", "-1:1:1", ",0:1:2", "0:4294967296:1",
               "0:4294967295:1", "4294967290:0:6", " 0:1:2", "a:1:2");
  CAPTURE(wrong);
  CHECK(parse_id_ranges(wrong).error().code == Refusal::invalid_argument);
}

TEST_CASE("Owners are mapped, and strangers belong to the root", "[snapshotter][ids]") {
  auto const mapping = mapping_of("0:1000:1,1:100000:10", "0:2000:5");
  CHECK(mapping.user(0) == 1000);
  CHECK(mapping.user(1) == 100000);
  CHECK(mapping.user(10) == 100009);
  CHECK(mapping.user(11) == 1000);
  CHECK(mapping.group(4) == 2004);
  CHECK(mapping.group(5) == 2000);
  CHECK(mapping.mount_options() ==
        std::vector<std::string>{"uidmap=0:1000:1,1:100000:10", "gidmap=0:2000:5"});
}

TEST_CASE("What is owned from outside was mapped before", "[snapshotter][ids]") {
  auto const mapping = mapping_of("0:1000:10", "0:2000:10");
  CHECK(mapping.has_mapped(1000, 2000));
  CHECK(mapping.has_mapped(1009, 2009));
  CHECK_FALSE(mapping.has_mapped(0, 0));
  CHECK_FALSE(mapping.has_mapped(1010, 2000));
  CHECK_FALSE(mapping.has_mapped(1000, 1999));
}

TEST_CASE("A namespace has users and groups, or there is none", "[snapshotter][ids]") {
  CHECK_FALSE(IdMapping::of({}).value().has_value());
  CHECK(IdMapping::of({{user_mapping_label, "0:1:2"}}).error().code == Refusal::invalid_argument);
  CHECK(IdMapping::of({{group_mapping_label, "0:1:2"}}).error().code == Refusal::invalid_argument);
}

TEST_CASE("Owners of what FUSE serves cannot be mapped", "[snapshotter][ids]") {
  std::vector<MountEntry> const table{entry("/", "ext4"), entry("/a", "erofs"),
                                      entry("/b", "fuse.erofs_oci"), entry("/c", "fuse.erofs_oci"),
                                      entry("/c", "erofs")};
  CHECK_FALSE(is_unmappable(table, "/a"));
  CHECK(is_unmappable(table, "/b"));
  CHECK_FALSE(is_unmappable(table, "/c"));  // what is on top counts
  CHECK_FALSE(is_unmappable(table, "/none"));
}

}  // namespace id_mapping_test
}  // namespace oci_snapshotter
