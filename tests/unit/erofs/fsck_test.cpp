// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/erofs/fsck.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/source/memory.hpp>

#include "support.hpp"

namespace erofs_oci::erofs {
namespace fsck_test {

Tree two_files() {
  Tree tree;
  for (auto const* const name : {"a", "b"}) {
    auto node = make_node(Kind::regular);
    *node.regular() = {1000, {{0, 1000, 1, 512}}, {}};
    tree.add(root_id, name, node);
  }
  return tree;
}

Reader<Memory> open(Bytes image, std::vector<AnySource> devices = {}) {
  return Reader<Memory>::open(Memory(std::move(image)), std::move(devices)).value();
}

void unguard(Bytes& image) {
  image[superblock_offset + 8] &= ~std::byte{1};
}

TEST_CASE("check reads every byte of data once", "[erofs][fsck]") {
  auto const tree = two_files();
  auto image = Writer::make(tree, {{4, ""}})->to_bytes();
  std::vector<AnySource> devices;
  devices.emplace_back(Memory(Bytes(2048)));

  auto const findings = check(open(std::move(image), std::move(devices)), {.data = true});

  REQUIRE(findings.has_value());
  CHECK(findings->sound());
  CHECK(findings->inodes == 3);
  CHECK(findings->data_bytes == 1000);
}

TEST_CASE("check names each file whose data cannot be read", "[erofs][fsck][error]") {
  auto tree = two_files();
  auto node = make_node(Kind::regular);
  *node.regular() = {100, {{0, 100, 1, 0}}, {}};
  tree.add(root_id, "fine", node);
  auto image = Writer::make(tree, {{4, ""}})->to_bytes();
  std::vector<AnySource> devices;
  devices.emplace_back(Memory(Bytes(1400)));  // ends in a and b

  auto const findings = check(open(std::move(image), std::move(devices)), {.data = true});

  REQUIRE(findings.has_value());
  REQUIRE(findings->count == 2);
  CHECK(findings->list[0].path == "/a");
  CHECK(findings->list[1].path == "/b");
  CHECK_THAT(findings->list[0].text, Catch::Contains("data: device 1 offset 512"));
}

TEST_CASE("check misses no device that starts elsewhere", "[erofs][fsck][error]") {
  auto const tree = two_files();
  auto image = Writer::make(tree, {{4, ""}})->to_bytes();
  unguard(image);
  image[1152 + 68] ^= std::byte{4};

  auto const findings = check(open(std::move(image)));

  REQUIRE(findings->count == 2);  // the missing checksum is the other
  CHECK(findings->unknown == 1);
  CHECK(findings->list[0].unknown);
  CHECK_FALSE(findings->list[1].unknown);
  CHECK_THAT(findings->list[1].text, Catch::Contains("device 1 starts at block"));
  CHECK(findings->list[1].offset == 1152);
}

TEST_CASE("check counts links, and finds xattrs that occur twice", "[erofs][fsck][error]") {
  auto tree = two_files();
  tree[*tree.find(root_id, "a")].xattrs = {{"user.x", Bytes(4)}, {"user.y", Bytes(4)}};
  auto image = Writer::make(tree, {{4, ""}})->to_bytes();
  unguard(image);
  auto const before = open(image);
  auto const a = find(before, "a").value();
  auto const y = std::ranges::find(image.begin() + static_cast<std::ptrdiff_t>(a.position),
                                   image.end(), std::byte{'y'});
  *y = std::byte{'x'};
  image[a.position + 6] = std::byte{3};

  auto const findings = check(open(std::move(image)));

  REQUIRE(findings->count == 3);
  CHECK_THAT(findings->list[1].text, Catch::Contains("xattr 'user.x' twice"));
  CHECK_THAT(findings->list[2].text, Catch::Contains("link count 3, there are 1"));
  CHECK(findings->list[2].path == "/a");
  CHECK(findings->list[2].offset == a.position);
}

TEST_CASE("check stores only so many findings", "[erofs][fsck][error]") {
  Tree tree;
  for (int i = 0; i < 3000; ++i) tree.add(root_id, std::to_string(i), make_node(Kind::fifo));
  auto image = Writer::make(tree, {})->to_bytes();
  auto const reader = open(image);
  std::vector<std::uint64_t> positions;
  REQUIRE(walk(reader, [&](Visit const& at) {
    if (at.depth > 0) positions.push_back(at.inode->position);
    return Step::enter;
  }));
  for (auto const position : positions) image[position + 6] = std::byte{9};
  unguard(image);

  auto const findings = check(open(std::move(image)));

  CHECK(findings->count == 3001);
  CHECK(findings->list.size() == Findings::kept);
}

}  // namespace fsck_test
}  // namespace erofs_oci::erofs
