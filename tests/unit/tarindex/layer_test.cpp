// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tarindex/layer.hpp>  // first: proves that the header stands alone

#include <catch2/catch.hpp>
#include <rapidcheck/catch.h>

#include "support.hpp"

namespace erofs_oci::tarindex {
namespace {

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

TEST_CASE("Only a directory can be the root", "[tarindex][layer][error]") {
  CHECK(error_of(TarMaker().file("./")).code == Errc::corrupt);
  CHECK(error_of(TarMaker().symlink("a/..", "b")).code == Errc::corrupt);
  CHECK(error_of(TarMaker().file("x").hard_link(".", "x")).code == Errc::corrupt);
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

TEST_CASE("A file in the way of a directory is an error", "[tarindex][layer][error]") {
  auto const error = error_of(TarMaker().file("a").file("a/b"));
  CHECK(error.code == Errc::corrupt);
  CHECK(error.context.find("'a/b' at offset 512: 'a' is not a directory") != std::string::npos);
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
  CHECK(dangling(TarMaker().hard_link("d/a", "x").file("d").end()).empty());  // replaced
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

  CHECK(layer.dangling.empty());
  CHECK(layer.tree.root().directory()->children.size() == count + 1);
}

TEST_CASE("Whiteouts stand for what is gone", "[tarindex][layer]") {
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

TEST_CASE("Bookkeeping and whiteouts of nothing are left out", "[tarindex][layer]") {
  auto const maker = TarMaker()
                         .file(".wh..wh.plnk/1.2")
                         .file(".wh..wh.aufs")
                         .file(".wh.")
                         .file(".wh..")
                         .file("a/.wh...")
                         .end();
  auto const layer = layer_of(maker.bytes());

  REQUIRE(layer);
  CHECK(layer->tree.root().directory()->children.empty());
  CHECK(layer->reports.count() == 5);
}

TEST_CASE("Whiteouts may be taken as names", "[tarindex][layer]") {
  auto const layer =
      layer_of(TarMaker().file(".wh.x").end().bytes(), {.whiteouts = Whiteouts::literal});
  REQUIRE(layer);
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

TEST_CASE("Attributes beyond an image's limits are errors", "[tarindex][layer][error]") {
  auto const with = [](std::string const& name, std::size_t size) {
    return TarMaker().pax({{"SCHILY.xattr." + name, std::string(size, 'v')}}).file("f").end();
  };
  CHECK(layer_of(with("user.a", 65535).bytes()));
  CHECK(error_of(with("user.a", 65536)).code == Errc::unsupported);
  CHECK(layer_of(with("user." + std::string(255, 'n'), 1).bytes()));
  CHECK(error_of(with("user." + std::string(256, 'n'), 1)).code == Errc::unsupported);

  TarMaker many;
  std::vector<std::pair<std::string, std::string>> records;
  for (int i = 0; i < 5; ++i) {
    records.emplace_back("SCHILY.xattr.user." + std::to_string(i), std::string(60000, 'v'));
  }
  auto const error = error_of(many.pax(records).file("f").end());
  CHECK(error.context.find("'f' at offset") != std::string::npos);
}

TEST_CASE("Device numbers beyond an image's limits are errors", "[tarindex][layer][error]") {
  auto const device = [](std::uint64_t major, std::uint64_t minor) {
    return TarMaker().member(
        {.name = "d", .typeflag = '3', .dev_major = major, .dev_minor = minor});
  };
  CHECK(layer_of(device(0xfff, 0xfffff).bytes()));
  CHECK(error_of(device(0x1000, 0)).code == Errc::unsupported);
  CHECK(error_of(device(0, 0x100000)).code == Errc::unsupported);
}

/// A sparse member with one segment and the archive around it.
TarMaker one_segment(std::uint64_t offset, std::uint64_t length, std::uint64_t size) {
  return TarMaker()
      .pax({{"GNU.sparse.map", std::to_string(offset) + "," + std::to_string(length)},
            {"GNU.sparse.size", std::to_string(size)},
            {"GNU.sparse.name", "s"}})
      .file("GNUSparseFile.0/s", std::string(static_cast<std::size_t>(length), 'd'))
      .end();
}

TEST_CASE("Sparse segments in whole blocks become extents and holes", "[tarindex][layer]") {
  auto const maker = one_segment(1024, 1024, 4096);
  std::string expected(4096, '\0');
  expected.replace(1024, 1024, 1024, 'd');

  auto const row = rows_of(maker).at("/s");

  CHECK(row.size == 4096);
  CHECK(row.sha256 == digest_of(as_bytes(expected)).hex());
}

TEST_CASE("A last segment may end inside a block of zeros, or at the end", "[tarindex][layer]") {
  auto const layer = layer_of(one_segment(1024, 700, 4096).bytes());
  REQUIRE(layer);
  CHECK(layer->tree[*layer->tree.find(erofs::root_id, "s")].regular()->clean_padding);
  CHECK(layer_of(one_segment(1024, 700, 1724).bytes()));

  auto dirty = one_segment(1024, 700, 4096).bytes();
  dirty[1536 + 700] = std::byte{1};
  auto const refused = layer_of(dirty);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Errc::unsupported);
}

TEST_CASE("Sparse segments that no image can hold are errors", "[tarindex][layer][error]") {
  auto const error = error_of(one_segment(1000, 512, 4096));
  CHECK(error.code == Errc::unsupported);
  CHECK(error.context.find("member 's'") != std::string::npos);
  CHECK(error.context.find("512 bytes at 1000") != std::string::npos);

  TarMaker two;
  two.pax({{"GNU.sparse.map", "0,700,1024,512"}, {"GNU.sparse.size", "4096"}});
  CHECK(error_of(two.file("s", std::string(1212, 'd')).end()).code == Errc::unsupported);
}

TEST_CASE("A layer may not have more files than allowed", "[tarindex][layer][error]") {
  std::string deep;
  for (int i = 0; i < 2000; ++i) deep += "d/";
  TarMaker maker;
  for (int i = 0; i < 10; ++i) {
    maker.pax({{"path", std::to_string(i) + "/" + deep + "f"}}).file("f");
  }
  CHECK(layer_of(maker.bytes()));

  auto const error = error_of(maker, {.max_nodes = 10000});

  CHECK(error.code == Errc::unsupported);
  CHECK(error.context.find("more than 10000 files") != std::string::npos);
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
    CHECK(layer_of(maker.bytes(), {.max_nodes = 31}));
    CHECK(error_of(maker, {.max_nodes = 20}).code == Errc::unsupported);
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

  CHECK(layer_of(attributes.end().bytes(), {.max_extra = 31000}));
  CHECK(layer_of(targets.end().bytes(), {.max_extra = 3000}));
  CHECK(layer_of(links.end().bytes(), {.max_extra = 3000}));
  auto const error = error_of(attributes, {.max_extra = 20000});
  CHECK(error.code == Errc::unsupported);
  CHECK(error.context.find("more than 20000 bytes") != std::string::npos);
  CHECK(error_of(targets, {.max_extra = 2000}).code == Errc::unsupported);
  CHECK(error_of(links, {.max_extra = 2000}).code == Errc::unsupported);
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

}  // namespace
}  // namespace erofs_oci::tarindex
