// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/erofs/walk.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

#include <erofs_oci/erofs/fsck.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/flaky.hpp>

#include "support.hpp"

namespace erofs_oci::erofs {
namespace walk_test {

NodeId link(Tree& tree, NodeId parent, std::string name, std::string target) {
  auto node = make_node(Kind::symlink);
  node.content = Symlink{std::move(target)};
  return tree.add(parent, std::move(name), std::move(node));
}

/// /d/e/f, and links to it of every sort.
Tree links() {
  Tree tree;
  auto const d = tree.add(root_id, "d", make_node(Kind::directory));
  auto const e = tree.add(d, "e", make_node(Kind::directory));
  tree.add(e, "f", make_node(Kind::fifo));
  link(tree, root_id, "absolute", "/d/e/f");
  link(tree, d, "relative", "e/f");
  link(tree, e, "up", "../relative");
  link(tree, root_id, "escape", "../../../../d/e/f");
  link(tree, root_id, "dir", "d");
  link(tree, root_id, "loop", "loop");
  link(tree, root_id, "ping", "pong");
  link(tree, root_id, "pong", "/ping");
  link(tree, root_id, "dangling", "nowhere");
  return tree;
}

Reader<Memory> reader_of(Tree const& tree) {
  return Reader<Memory>::open(Memory(Writer::make(tree, {})->to_bytes())).value();
}

TEST_CASE("find follows the links that the caller allows and never leaves the root",
          "[erofs][walk]") {
  auto const tree = links();
  auto const reader = reader_of(tree);
  auto const f = find(reader, "d/e/f")->nid;

  for (auto const* const path : {"/d/e/f", "//d/.///e/f", "d/e/../e/f", "../../d/e/f", "d/e/f/"}) {
    INFO(path);
    CHECK(find(reader, path)->nid == f);
  }
  for (auto const* const path :
       {"absolute", "d/relative", "d/e/up", "escape", "dir/e/f", "dir/relative"}) {
    INFO(path);
    CHECK(find(reader, path, Follow::all)->nid == f);
  }
  CHECK(find(reader, "")->nid == reader.root()->nid);
  CHECK(find(reader, "..")->nid == reader.root()->nid);
  CHECK(find(reader, "absolute")->is_symlink());
  CHECK(find(reader, "absolute", Follow::parents)->is_symlink());
  CHECK(find(reader, "dir/absolute").error().code == std::errc::not_a_directory);
  CHECK(find(reader, "dir/e/f", Follow::parents)->nid == f);
  CHECK(find(reader, "dir/e/f").error().code == std::errc::not_a_directory);
}

TEST_CASE("find says what is wrong with a path", "[erofs][walk][error]") {
  auto const tree = links();
  auto const reader = reader_of(tree);

  CHECK(find(reader, "x").error().code == std::errc::no_such_file_or_directory);
  CHECK(find(reader, std::string(300, 'x')).error().code == std::errc::no_such_file_or_directory);
  CHECK(find(reader, "d/e/f/x").error().code == std::errc::not_a_directory);
  CHECK(find(reader, "loop", Follow::all).error().code == std::errc::too_many_symbolic_link_levels);
  CHECK(find(reader, "ping", Follow::all).error().code == std::errc::too_many_symbolic_link_levels);
  CHECK(find(reader, "dangling", Follow::all).error().code == std::errc::no_such_file_or_directory);
  CHECK_THAT(find(reader, "d/x").error().message(), Catch::Contains("d/x"));
}

TEST_CASE("find does not drown in links that multiply", "[erofs][walk][error]") {
  Tree tree;
  std::string many;
  while (many.size() < 4000) many += "a/";
  link(tree, root_id, "a", many);  // each step leaves 2,000 more to go
  auto const reader = reader_of(tree);

  CHECK_FALSE(find(reader, "a", Follow::all).has_value());
}

TEST_CASE("walk visits depth first in order, and skips or stops as its visitor says",
          "[erofs][walk]") {
  auto const tree = links();
  auto const reader = reader_of(tree);
  std::vector<std::string> paths;
  std::vector<std::size_t> depths;

  REQUIRE(walk(reader, [&](Visit const& at) {
    paths.push_back(at.path);
    depths.push_back(at.depth);
    return at.path == "/d/e" ? Step::skip : at.path == "/dir" ? Step::stop : Step::enter;
  }));

  CHECK(paths == std::vector<std::string>{"/", "/absolute", "/d", "/d/e", "/d/relative",
                                          "/dangling", "/dir"});
  CHECK(depths == std::vector<std::size_t>{0, 1, 1, 2, 2, 1, 1});
}

TEST_CASE("walk keeps to its depth", "[erofs][walk][error]") {
  auto const tree = links();
  auto const reader = reader_of(tree);
  std::vector<std::string> errors;

  REQUIRE(walk(reader,
               [&](Visit const& at) {
                 if (at.error != nullptr) errors.push_back(at.path + ": " + at.error->message());
                 return Step::enter;
               },
               {.max_depth = 2}));

  REQUIRE(errors.size() == 1);
  CHECK_THAT(errors.front(), Catch::Contains("/d/e") && Catch::Contains("deeper than 2"));
}

TEST_CASE("walk of many directories that share one content ends soon", "[erofs][walk][error]") {
  // A root of one large directory, and the inodes of its children made to have its very content.
  Tree tree;
  for (int i = 0; i < 3000; ++i)
    tree.add(root_id, "d" + std::to_string(i), make_node(Kind::directory));
  auto image = Writer::make(tree, {})->to_bytes();
  auto const reader = Reader<Memory>::open(Memory(image)).value();
  auto const root = reader.root().value();
  auto const record = to_bytes(std::span(image).subspan(root.position, 32));
  std::vector<std::uint64_t> positions;
  REQUIRE(walk(reader, [&](Visit const& at) {
    if (at.depth > 0) positions.push_back(at.inode->position);
    return Step::enter;
  }));
  for (auto const position : positions) {
    std::ranges::copy(record, image.begin() + static_cast<std::ptrdiff_t>(position));
    image[position] = std::byte{0};  // layout plain, so that the tail does not matter
    store_le(static_cast<std::uint32_t>(root.size() / 512 * 512),
             std::span(image).subspan(position + 8).first<4>());
  }
  image[superblock_offset + 8] &= ~std::byte{1};
  auto const hostile = Reader<Memory>::open(Memory(image)).value();
  std::uint64_t visits = 0;

  REQUIRE(walk(hostile, [&](Visit const&) {
    ++visits;
    return Step::enter;
  }));

  CHECK(visits > 3000);
  CHECK(visits < 50'000);  // not 3,000 times 3,000
}

}  // namespace walk_test
}  // namespace erofs_oci::erofs
