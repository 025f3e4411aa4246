// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tarindex/layer.hpp>  // first: proves that the header stands alone

#include <limits>
#include <memory>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include "support.hpp"

namespace erofs_oci::tarindex {
namespace layer_test {

using testing::TarMaker;

/// The paths of a layer, removals as overlayfs shows them.
std::vector<std::string> paths(TarMaker const& maker) {
  std::vector<std::string> out;
  for (auto const& [path, row] : rows_of(maker)) out.push_back(path);
  return out;
}

Error error_of(TarMaker const& maker, LayerOptions options = {}) {
  auto layer = layer_of(maker.bytes(), options);
  REQUIRE_FALSE(layer);
  return layer.error();
}

/// The layer's only report.
std::string report_of(TarMaker const& maker) {
  auto const layer = layer_of(maker.bytes());
  REQUIRE(layer);
  REQUIRE(layer->reports.count() == 1);
  return layer->reports.list().front().text;
}

using Paths = std::vector<std::string>;

TEST_CASE("Parents without a member are implied", "[tarindex][layer]") {
  auto const layer = layer_of(TarMaker().file("a/b/f").dir("a/", 0700).end().bytes());

  REQUIRE(layer);
  auto const& tree = layer->tree;
  auto const a = *tree.find(erofs::root_id, "a");
  auto const b = *tree.find(a, "b");
  CHECK(tree.root().directory()->implied);
  CHECK(tree.root().permissions == 0755);
  CHECK_FALSE(tree[a].directory()->implied);  // described after its child
  CHECK(tree[a].permissions == 0700);
  CHECK(tree[b].directory()->implied);
  CHECK(tree[b].mtime == erofs::Time{});
}

TEST_CASE("The root has what its member says", "[tarindex][layer]") {
  auto const root = rows_of(TarMaker().dir("./", 0711).end()).at("/");
  CHECK(root.mode == 0711);
  CHECK(root.mtime == 1700000000);
}

TEST_CASE("Only a directory can be the root", "[tarindex][layer]") {
  CHECK(report_of(TarMaker().file("./")) ==
        "member './': only a directory can be the root, left out");
  CHECK(paths(TarMaker().symlink("a/..", "b").end()) == Paths{"/"});
  CHECK(paths(TarMaker().file("x").hard_link(".", "x").end()) == Paths{"/", "/x"});
}

TEST_CASE("The last member of a name counts", "[tarindex][layer]") {
  CHECK(rows_of(TarMaker().file("f", "1").file("f", "22").end()).at("/f").size == 2);
  CHECK(paths(TarMaker().dir("x").file("x/f").file("x").end()) == Paths{"/", "/x"});
  CHECK(paths(TarMaker().file("x").dir("x").file("x/f").end()) == Paths{"/", "/x", "/x/f"});
  CHECK(paths(TarMaker().dir("x").file("x/f").dir("x", 0700).end()) == Paths{"/", "/x", "/x/f"});
  CHECK(rows_of(TarMaker().symlink("s", "a").file("s", "1").end()).at("/s").type == "reg");
}

TEST_CASE("A directory in place of something else hides what is below", "[tarindex][layer]") {
  auto const rows = rows_of(TarMaker().file("x").dir("x").dir("y").end());
  CHECK(rows.at("/x").xattrs.contains("trusted.overlay.opaque"));
  CHECK(rows.at("/y").xattrs.empty());
}

TEST_CASE("A directory over a directory takes the later attributes", "[tarindex][layer]") {
  TarMaker maker;
  maker.pax({{"SCHILY.xattr.user.a", "1"}}).dir("d", 0700).file("d/f");
  maker.pax({{"SCHILY.xattr.user.b", "2"}})
      .member({.name = "d", .typeflag = '5', .mode = 0711, .uid = 9});

  auto const row = rows_of(maker.end()).at("/d");

  CHECK(row.mode == 0711);
  CHECK(row.uid == 9);
  CHECK(row.xattrs == std::map<std::string, std::string>{{"user.b", "2"}});
}

TEST_CASE("What is below a file is left out", "[tarindex][layer]") {
  CHECK(report_of(TarMaker().file("a").file("a/b")) ==
        "member 'a/b': 'a' is not a directory, left out");
}

TEST_CASE("A member that is left out replaces nothing", "[tarindex][layer]") {
  auto const odd =
      TarMaker().file("a", "x").member({.name = "a", .typeflag = '3', .dev_major = 0x1000});
  CHECK(rows_of(TarMaker(odd).end()).at("/a").size == 1);
  CHECK(report_of(odd).find("device number 4096:0, left out") != std::string::npos);
}

TEST_CASE("A link on the way is followed", "[tarindex][layer]") {
  CHECK(paths(TarMaker().dir("usr/lib").symlink("lib", "usr/lib").file("lib/x").end()) ==
        Paths{"/", "/lib", "/usr", "/usr/lib", "/usr/lib/x"});
  CHECK(paths(TarMaker().symlink("lib", "/../usr/lib").file("lib/x").end()) ==
        Paths{"/", "/lib", "/usr", "/usr/lib", "/usr/lib/x"});
}

TEST_CASE("Hard links share a file", "[tarindex][layer]") {
  auto const rows = rows_of(
      TarMaker().file("a", "x").hard_link("b", "./a").symlink("s", "t").hard_link("t", "/s").end());
  CHECK(rows.at("/a").nlink == 2);
  CHECK(rows.at("/b") == rows.at("/a"));
  CHECK(rows.at("/t").type == "lnk");
}

TEST_CASE("A hard link keeps the file that its target was", "[tarindex][layer]") {
  auto const rows =
      rows_of(TarMaker().file("a", "old").hard_link("b", "a").file("a", "new!").end());
  CHECK(rows.at("/b").size == 3);
  CHECK(rows.at("/b").nlink == 1);
  CHECK(rows.at("/a").size == 4);
}

TEST_CASE("A hard link may come before its target", "[tarindex][layer]") {
  CHECK(rows_of(TarMaker().hard_link("b", "a").file("a", "x").end()).at("/b").nlink == 2);
  CHECK(rows_of(TarMaker().hard_link("d/c", "b").hard_link("b", "a").file("a").end())
            .at("/d/c")
            .nlink == 3);
  CHECK(rows_of(TarMaker().hard_link("b", "d/a").file("d/a").end()).at("/b").nlink == 2);
  // a later member of that name wins, as ever
  CHECK(rows_of(TarMaker().hard_link("b", "a").file("b", "own").file("a").end()).at("/b").size ==
        3);
}

TEST_CASE("Hard links to nothing are kept for the layers below", "[tarindex][layer]") {
  auto const dangling = [](TarMaker const& maker) {
    auto const layer = layer_of(maker.bytes());
    REQUIRE(layer);
    Paths out;
    for (auto const& link : layer->dangling) out.push_back(link.path);
    return out;
  };
  CHECK(dangling(TarMaker().hard_link("b", "a").end()) == Paths{"b"});
  CHECK(dangling(TarMaker().hard_link("c", "b").hard_link("b", "a").end()) == Paths{"c", "b"});
  CHECK(dangling(TarMaker().hard_link("a", "a").end()) == Paths{"a"});
  CHECK(dangling(TarMaker().hard_link("a", "b").hard_link("b", "a").end()) == Paths{"a", "b"});
  CHECK(dangling(TarMaker().hard_link("a", "d/x").end()) == Paths{"a"});
  CHECK(dangling(TarMaker().hard_link("a", "..").end()) == Paths{"a"});
  CHECK(dangling(TarMaker().hard_link("b", "a").file("a").end()) == Paths{"b"});  // not yet there
  CHECK(dangling(TarMaker().file("a").hard_link("b", "a").end()).empty());
  CHECK(dangling(TarMaker().hard_link("d/a", "x").file("d").end()).empty());  // replaced
}

TEST_CASE("A hard link does not lead to what its layer has removed before", "[tarindex][layer]") {
  for (auto const& maker : {
           TarMaker().file(".wh.a").hard_link("b", "a"),
           TarMaker().file(".wh.d").hard_link("b", "d/e/a"),
           TarMaker().file("d/.wh..wh..opq").hard_link("b", "d/a"),
           TarMaker().file(".wh..wh..opq").hard_link("b", "d/a"),
           TarMaker().file("d").hard_link("b", "d/a"),
           TarMaker().file("d").dir("d").hard_link("b", "d/a"),
       }) {
    auto const layer = layer_of(TarMaker(maker).end().bytes());
    REQUIRE(layer.has_value());
    CHECK(layer->dangling.empty());
    CHECK(layer->reports.count() == 1);
  }
}

TEST_CASE("A chain of a hundred thousand links is followed once", "[tarindex][layer]") {
  LayerBuilder builder;
  constexpr int count = 100000;
  for (int i = 0; i < count; ++i) {
    tar::Entry entry;
    entry.type = tar::Type::hard_link;
    entry.path = "l" + std::to_string(i);
    entry.link = "l" + std::to_string(i + 1);
    REQUIRE(builder.apply(std::move(entry)));
  }
  tar::Entry last;
  last.path = "l" + std::to_string(count);
  REQUIRE(builder.apply(std::move(last)));

  auto const layer = std::move(builder).finish();

  CHECK(layer.dangling.size() == count);  // lower layers may have had a file of each name
  CHECK(layer.tree.root().directory()->children.size() == count + 1);
}

TEST_CASE("Whiteouts remove names of lower layers", "[tarindex][layer]") {
  auto const rows = rows_of(TarMaker()
                                .file("d/.wh.gone")
                                .file(".wh.top")
                                .dir("o")
                                .file("o/.wh..wh..opq")
                                .file("o/n")
                                .end());

  CHECK(rows.at("/d/gone").rdev == "0:0");
  CHECK(rows.at("/d/gone").mode == 0);
  CHECK(rows.at("/top").rdev == "0:0");
  CHECK(rows.at("/o").xattrs.at("trusted.overlay.opaque") == "y");
  CHECK(rows.contains("/o/n"));
  CHECK(rows.size() == 6);
}

TEST_CASE("A layer's own files win over its whiteouts, in any order", "[tarindex][layer]") {
  CHECK(rows_of(TarMaker().file("f", "x").file(".wh.f").end()).at("/f").type == "reg");
  CHECK(rows_of(TarMaker().file(".wh.f").file("f", "x").end()).at("/f").type == "reg");
  CHECK(paths(TarMaker().file("o/a").file("o/.wh..wh..opq").end()) == Paths{"/", "/o", "/o/a"});
}

TEST_CASE("A whiteout of an own directory makes it start anew", "[tarindex][layer]") {
  auto const make = GENERATE(0, 1);
  TarMaker maker;
  if (make == 0) maker.file(".wh.d").file("d/f");
  if (make == 1) maker.file("d/f").file(".wh.d");

  auto const layer = layer_of(maker.end().bytes());

  REQUIRE(layer);
  auto const& directory = *layer->tree[*layer->tree.find(erofs::root_id, "d")].directory();
  CHECK(directory.opaque);
  CHECK_FALSE(directory.implied);  // nothing to inherit: the one below is gone
  CHECK(directory.children.size() == 1);
}

TEST_CASE("AUFS's bookkeeping is left out", "[tarindex][layer]") {
  auto const maker =
      TarMaker().file(".wh..wh.plnk/1.2").file(".wh..wh.aufs").file(".wh..wh.x/.wh.").end();
  auto const layer = layer_of(maker.bytes());

  REQUIRE(layer);
  CHECK(layer->tree.root().directory()->children.empty());
  CHECK(layer->reports.count() == 3);
}

TEST_CASE("A whiteout that names nothing is an error", "[tarindex][layer][error]") {
  for (auto const* const name : {".wh.", ".wh..", "a/.wh..."}) {
    auto const error = error_of(TarMaker().file(name));
    CHECK(error.code == Errc::corrupt);
    CHECK(error.context.find(std::string("'") + name + "' at offset 0") != std::string::npos);
  }
}

TEST_CASE("Whiteouts may be taken as names", "[tarindex][layer]") {
  auto const layer = layer_of(TarMaker().file(".wh.x").file(".wh.").file(".wh..wh.x").end().bytes(),
                              {.whiteouts = Whiteouts::literal});
  REQUIRE(layer);
  CHECK(layer->tree.root().directory()->children.size() == 3);
  CHECK(layer->tree.find(erofs::root_id, ".wh.x") != nullptr);
}

TEST_CASE("Attributes of no namespace are left out and reported", "[tarindex][layer]") {
  TarMaker maker;
  maker.pax({{"SCHILY.xattr.user.ok", "1"},
             {"SCHILY.xattr.os2.x", "2"},
             {"SCHILY.xattr.system.nfs4_acl", "3"},
             {"SCHILY.xattr.user.", "4"},
             {"SCHILY.xattr.system.posix_acl_access", "acl"}});
  auto const layer = layer_of(maker.file("f").end().bytes());

  REQUIRE(layer);
  auto const& node = layer->tree[*layer->tree.find(erofs::root_id, "f")];
  CHECK(node.xattrs == std::vector<erofs::Xattr>{{"user.ok", to_bytes("1")},
                                                 {"system.posix_acl_access", to_bytes("acl")}});
  CHECK(layer->reports.count() == 3);
}

TEST_CASE("Attributes beyond an image's limits are left out", "[tarindex][layer]") {
  auto const with = [](std::string const& name, std::size_t size) {
    return TarMaker().pax({{"SCHILY.xattr." + name, std::string(size, 'v')}}).file("f").end();
  };
  auto const kept = [](TarMaker const& maker) { return rows_of(maker).at("/f").xattrs.size(); };
  CHECK(kept(with("user.a", 65535)) == 1);
  CHECK(report_of(with("user.a", 65536)).find("attribute 'user.a' of 65536 bytes") !=
        std::string::npos);
  CHECK(kept(with("user." + std::string(255, 'n'), 1)) == 1);
  CHECK(kept(with("user." + std::string(256, 'n'), 1)) == 0);

  TarMaker many;
  std::vector<std::pair<std::string, std::string>> records;
  for (int i = 0; i < 5; ++i) {
    records.emplace_back("SCHILY.xattr.user." + std::to_string(i), std::string(60000, 'v'));
  }
  many.pax(records).file("f").end();
  CHECK(kept(many) == 4);
  CHECK(report_of(many).find("'user.4'") != std::string::npos);
}

/// Whether the layer's tree may take this much.
Result<Layer> layer_within(std::uint64_t bytes, TarMaker const& maker) {
  constexpr auto enough = std::numeric_limits<std::uint64_t>::max();
  return layer_of(maker.bytes(),
                  {.memory = std::make_shared<ImageMemory>(MemoryBudget{2 * bytes}, enough)});
}

TEST_CASE("A layer may not have more files than allowed", "[tarindex][layer][error]") {
  std::string deep;
  for (int i = 0; i < 2000; ++i) deep += "d/";
  TarMaker maker;
  for (int i = 0; i < 10; ++i) {
    maker.pax({{"path", std::to_string(i) + "/" + deep + "f"}}).file("f");
  }
  CHECK(layer_of(maker.bytes()));

  auto const layer = layer_within(3 << 20, maker);

  REQUIRE_FALSE(layer);
  CHECK(layer.error().code == Errc::unsupported);
  CHECK(layer.error().context.find("take more than 3 MiB") != std::string::npos);
}

TEST_CASE("A short layer may not stand for many files", "[tarindex][layer][error]") {
  std::string const deep = std::string(4000, 'd');
  std::string path = deep;
  for (std::size_t i = 1; i < path.size(); i += 2) path[i] = '/';
  TarMaker maker;
  for (int i = 0; i < 100; ++i) {
    maker.pax({{"path", std::to_string(i) + "/" + path + "f"}}).file("f");
  }
  auto const memory = std::make_shared<ImageMemory>();
  memory->came(40'000);  // as if it were gzipped
  auto const error = error_of(maker, {.memory = memory});
  CHECK(error.code == Errc::unsupported);
  CHECK(error.context.find("made-up layer") != std::string::npos);
}

TEST_CASE("Whiteouts and links that lead nowhere yet count as files", "[tarindex][layer][error]") {
  auto const make = [](auto add) {
    TarMaker maker;
    for (int i = 0; i < 30; ++i) add(maker, std::to_string(i));
    return maker.end();
  };
  auto const whiteouts = make([](auto& maker, auto const& n) { maker.file(".wh." + n); });
  auto const links = make([](auto& maker, auto const& n) { maker.hard_link(n, "nowhere"); });

  for (auto const& maker : {whiteouts, links}) {
    CHECK(layer_within(12000, maker));
    CHECK_FALSE(layer_within(5000, maker));
  }
}

TEST_CASE("What files bring along has a bound", "[tarindex][layer][error]") {
  TarMaker attributes;
  TarMaker targets;
  TarMaker links;
  for (int i = 0; i < 30; ++i) {
    auto const name = std::to_string(i);
    attributes.pax({{"SCHILY.xattr.user.a", std::string(1000, 'v')}}).file("f");
    targets.symlink(name, std::string(90, 't'));
    links.hard_link(name, std::string(90, 't'));
  }

  TarMaker directory;
  for (int i = 0; i < 30; ++i) {
    directory.pax({{"SCHILY.xattr.user.a", std::string(1000, 'v')}}).dir("d");
  }

  CHECK(layer_within(60'000, attributes.end()));
  CHECK_FALSE(layer_within(25'000, attributes));
  CHECK(layer_within(60'000, directory.end()));
  CHECK_FALSE(layer_within(25'000, directory));
  CHECK(layer_within(12'000, targets.end()));
  CHECK_FALSE(layer_within(8000, targets));
  CHECK(layer_within(12'000, links.end()));
  CHECK_FALSE(layer_within(6000, links));
}

TEST_CASE("Any members give a layer or an error", "[tarindex][layer][property]") {
  rc::prop(
      "for all members over few names, hard links and whiteouts lead only to what is there", [] {
        auto const names = rc::gen::element<std::string>(
            "a", "b", "a/b", "b/a", "a/b/c", "..", ".wh.a", "a/.wh.b", "a/.wh..wh..opq", "", "/b/");
        auto const targets =
            rc::gen::element<std::string>("a", "b", "a/b", "../b/a", "/a", "c/../..", ".", "a/b/c");
        auto const types = rc::gen::element(tar::Type::regular, tar::Type::directory,
                                            tar::Type::hard_link, tar::Type::symlink);
        auto const count = *rc::gen::inRange(0, 12);
        LayerBuilder builder;
        for (int i = 0; i < count; ++i) {
          tar::Entry entry;
          entry.path = *names;
          entry.type = *types;
          entry.link = *targets;
          if (!builder.apply(std::move(entry))) return;
        }
        auto const layer = std::move(builder).finish();
        std::vector<Bytes> const none;
        auto const rows = Lister(layer.tree, none, Show::overlay).rows();
        for (auto const& [path, row] : rows) {
          RC_ASSERT(path == "/" || path.find(".wh.") == std::string::npos);
        }
      });
}

}  // namespace layer_test
}  // namespace erofs_oci::tarindex
