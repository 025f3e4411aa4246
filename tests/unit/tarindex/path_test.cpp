// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tarindex/path.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

namespace erofs_oci::tarindex {
namespace path_test {

std::string joined(std::string_view path) {
  std::string text;
  for (auto const part : normalised(path)) text += "/" + std::string(part);
  return text;
}

erofs::NodeId add(erofs::Tree& tree, erofs::NodeId parent, std::string name, erofs::Kind kind,
                  std::string target = {}) {
  auto node = erofs::make_node(kind);
  if (kind == erofs::Kind::symlink) node.content = erofs::Symlink{std::move(target)};
  return tree.add(parent, std::move(name), std::move(node));
}

TEST_CASE("A member's path is cleaned and never leaves the root", "[tarindex][path]") {
  CHECK(joined("") == "");
  CHECK(joined(".") == "");
  CHECK(joined("/") == "");
  CHECK(joined("./a") == "/a");
  CHECK(joined("//a///b/./c/") == "/a/b/c");
  CHECK(joined("a/../b") == "/b");
  CHECK(joined("../../etc/passwd") == "/etc/passwd");
  CHECK(joined("a/../../../b/..") == "");
  CHECK(joined("...") == "/...");
  CHECK(joined(std::string(255, 'n')) == "/" + std::string(255, 'n'));
}

TEST_CASE("walk() makes no directory that no file system can hold", "[tarindex][path][error]") {
  erofs::Tree tree;
  std::string const long_name(256, 'n');
  for (auto const name : {std::string_view(long_name), std::string_view("a\0b", 3)}) {
    auto const made = walk(tree, {name}, Missing::create);
    REQUIRE_FALSE(made);
    CHECK(made.error().code == Errc::unsupported);
    CHECK(walk(tree, {name}, Missing::leave).has_value());
  }
}

TEST_CASE("walk() makes what is missing, implied", "[tarindex][path]") {
  erofs::Tree tree;

  CHECK_FALSE(walk(tree, {"a", "b"}, Missing::leave)->has_value());
  auto const made = walk(tree, {"a", "b"}, Missing::create);

  REQUIRE(made);
  CHECK(tree[**made].directory()->implied);
  CHECK(tree[**made].permissions == 0755);
  CHECK(**walk(tree, {"a", "b"}, Missing::leave) == **made);
}

TEST_CASE("walk() follows links inside the tree", "[tarindex][path]") {
  erofs::Tree tree;
  auto const usr = add(tree, erofs::root_id, "usr", erofs::Kind::directory);
  auto const lib = add(tree, usr, "lib", erofs::Kind::directory);
  add(tree, erofs::root_id, "lib", erofs::Kind::symlink, "usr/lib");
  add(tree, usr, "abs", erofs::Kind::symlink, "/usr/./lib//");
  add(tree, lib, "up", erofs::Kind::symlink, "../../../../usr");
  add(tree, erofs::root_id, "twice", erofs::Kind::symlink, "lib");

  CHECK(**walk(tree, {"lib"}, Missing::leave) == lib);
  CHECK(**walk(tree, {"usr", "abs"}, Missing::leave) == lib);
  CHECK(**walk(tree, {"usr", "lib", "up"}, Missing::leave) == usr);
  CHECK(**walk(tree, {"twice", "up", "lib"}, Missing::leave) == lib);
}

TEST_CASE("walk() makes what a dangling link leads to", "[tarindex][path]") {
  erofs::Tree tree;
  add(tree, erofs::root_id, "lib", erofs::Kind::symlink, "usr/lib");

  auto const made = walk(tree, {"lib", "x"}, Missing::create);

  REQUIRE(made);
  CHECK(**walk(tree, {"usr", "lib", "x"}, Missing::leave) == **made);
}

TEST_CASE("walk() ends at what is no directory", "[tarindex][path][error]") {
  erofs::Tree tree;
  add(tree, erofs::root_id, "f", erofs::Kind::regular);
  add(tree, erofs::root_id, "loop", erofs::Kind::symlink, "loop");
  add(tree, erofs::root_id, "to-f", erofs::Kind::symlink, "f");

  for (auto const* const name : {"f", "loop", "to-f"}) {
    INFO(name);
    auto const walked = walk(tree, {name, "x"}, Missing::create);
    REQUIRE_FALSE(walked);
    CHECK(walked.error().code == Errc::corrupt);
  }
  CHECK_FALSE(walk(tree, {"f", "x"}, Missing::leave)->has_value());
}

TEST_CASE("Links do not lead to directories without end", "[tarindex][path][error]") {
  erofs::Tree tree;
  std::string deep;
  for (int i = 0; i < 2000; ++i) deep += "d/";
  add(tree, erofs::root_id, "deep", erofs::Kind::symlink, deep);
  REQUIRE(walk(tree, {"deep"}, Missing::create));
  Components path{"deep"};
  path.insert(path.end(), 100, "e");

  auto const walked = walk(tree, path, Missing::create);

  REQUIRE_FALSE(walked);
  CHECK(walked.error().code == Errc::unsupported);
}

}  // namespace path_test
}  // namespace erofs_oci::tarindex
