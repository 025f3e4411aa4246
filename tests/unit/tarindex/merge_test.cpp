// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tarindex/merge.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <erofs_oci/testing/layer_unpacker.hpp>
#include <rapidcheck/catch.h>

#include <memory>
#include <set>

#include "support.hpp"

namespace erofs_oci::tarindex {
namespace merge_test {

using testing::TarMaker;
using Paths = std::vector<std::string>;

// ---------------------------------------------------------------------------------------------
// Examples

struct Stack {
  std::vector<Bytes> archives;
  std::vector<Layer> layers;

  explicit Stack(std::vector<TarMaker> const& makers) {
    for (auto const& maker : makers) {
      archives.push_back(maker.bytes());
      auto layer = layer_of(archives.back());
      if (!layer) FAIL(layer.error().message());
      layers.push_back(*std::move(layer));
    }
  }

  [[nodiscard]] Merged merged(MergedMarks marks = MergedMarks::strip) const {
    std::vector<MergeInput> inputs;
    for (auto const& layer : layers) {
      inputs.push_back({&layer, {inputs.size() + 1, "layer" + std::to_string(inputs.size())}});
    }
    auto out = merge(inputs, marks);
    REQUIRE(out);
    return *std::move(out);
  }

  [[nodiscard]] Rows rows(MergedMarks marks = MergedMarks::strip) const {
    auto const all = merged(marks);
    std::vector<Bytes> used;
    for (auto const i : all.layers) used.push_back(archives[i]);
    return Lister(all.tree, used, Show::overlay).rows();
  }

  [[nodiscard]] Paths paths() const {
    Paths out;
    for (auto const& [path, row] : rows()) out.push_back(path);
    return out;
  }
};

TEST_CASE("An upper file replaces the lower one", "[tarindex][merge]") {
  auto const rows = Stack({TarMaker().file("f", "old"), TarMaker().file("f", "newer")}).rows();
  CHECK(rows.at("/f").sha256 == digest_of(as_bytes("newer")).hex());
}

TEST_CASE("Directories merge, files and directories replace each other", "[tarindex][merge]") {
  CHECK(Stack({TarMaker().file("d/a"), TarMaker().file("d/b")}).paths() ==
        Paths{"/", "/d", "/d/a", "/d/b"});
  CHECK(Stack({TarMaker().file("d/a"), TarMaker().file("d")}).paths() == Paths{"/", "/d"});
  CHECK(Stack({TarMaker().file("d"), TarMaker().file("d/b")}).paths() == Paths{"/", "/d", "/d/b"});
}

TEST_CASE("A file in a middle layer ends the search for its name", "[tarindex][merge]") {
  // upstream's merge shows /x/a as well
  CHECK(Stack({TarMaker().file("x/a"), TarMaker().file("x"), TarMaker().file("x/b")}).paths() ==
        Paths{"/", "/x", "/x/b"});
}

TEST_CASE("Only whiteouts hide: what looks so to overlayfs is a layer's own file",
          "[tarindex][merge]") {
  TarMaker upper;
  upper.pax({{"SCHILY.xattr.trusted.overlay.opaque", "y"}}).dir("d");
  upper.file("d/b").member({.name = "dev", .typeflag = '3'});
  auto const rows = Stack({TarMaker().file("d/a").file("dev"), upper}).rows();

  CHECK(rows.contains("/d/a"));
  CHECK(rows.at("/d").xattrs.at("trusted.overlay.opaque") == "y");
  CHECK(rows.at("/dev").rdev == "0:0");
}

TEST_CASE("An implied directory takes nothing from the one below", "[tarindex][merge]") {
  TarMaker lower;
  lower.pax({{"SCHILY.xattr.user.a", "1"}});
  lower.member({.name = "etc", .typeflag = '5', .mode = 0700, .uid = 5, .gid = 6, .mtime = 7});

  auto const rows =
      Stack({lower, TarMaker().file("etc/added"), TarMaker().file("etc/more")}).rows();

  auto const& etc = rows.at("/etc");
  CHECK(etc.mode == 0700);
  CHECK(etc.uid == 5);
  CHECK(etc.gid == 6);
  CHECK(etc.mtime == 7);
  CHECK(etc.xattrs.at("user.a") == "1");
}

TEST_CASE("A described directory takes the upper attributes", "[tarindex][merge]") {
  TarMaker lower;
  lower.pax({{"SCHILY.xattr.user.a", "1"}}).dir("etc", 0700);
  auto const rows = Stack({lower, TarMaker().dir("etc", 0711)}).rows();
  CHECK(rows.at("/etc").mode == 0711);
  CHECK(rows.at("/etc").xattrs.empty());
}

TEST_CASE("The root's attributes come from the topmost layer that has them", "[tarindex][merge]") {
  CHECK(Stack({TarMaker().dir(".", 0711), TarMaker().dir("./", 0701), TarMaker().file("f")})
            .rows()
            .at("/")
            .mode == 0701);
  CHECK(Stack({TarMaker().file("f")}).rows().at("/").mode == 0755);
  CHECK(Stack(std::vector<TarMaker>{}).rows().at("/").mode == 0755);
}

TEST_CASE("Whiteouts and opaque directories remove what is below", "[tarindex][merge]") {
  auto const lower = TarMaker().file("d/a").file("d/b").file("e/f").file("g");
  CHECK(Stack({lower, TarMaker().file("d/.wh.a").file(".wh.e").file(".wh.none")}).paths() ==
        Paths{"/", "/d", "/d/b", "/g"});
  CHECK(Stack({lower, TarMaker().file("d/.wh..wh..opq").file("d/c")}).paths() ==
        Paths{"/", "/d", "/d/c", "/e", "/e/f", "/g"});
  CHECK(Stack({lower, TarMaker().file(".wh..wh..opq").file("n")}).paths() == Paths{"/", "/n"});
}

TEST_CASE("What a layer brings stays, whatever it removes", "[tarindex][merge]") {
  auto const lower = TarMaker().file("d/a").dir("d", 0700);
  CHECK(Stack({lower, TarMaker().file("d/n").file(".wh.d")}).paths() == Paths{"/", "/d", "/d/n"});
  CHECK(Stack({lower, TarMaker().file("d/n").file(".wh.d")}).rows().at("/d").mode == 0755);
  CHECK(Stack({lower, TarMaker().file("d/a", "x").file("d/.wh.a")}).rows().at("/d/a").size == 1);
  CHECK(Stack({lower, TarMaker().file("d").dir("d")}).paths() == Paths{"/", "/d"});
}

TEST_CASE("A name may go and come back", "[tarindex][merge]") {
  auto const with = TarMaker().file("d/a");
  auto const without = TarMaker().file(".wh.d");
  CHECK(Stack({with, without, TarMaker().file("d/b")}).paths() == Paths{"/", "/d", "/d/b"});
  CHECK(Stack({with, without, with, without}).paths() == Paths{"/"});
}

TEST_CASE("Hard links stay together and lose hidden names", "[tarindex][merge]") {
  auto const lower = TarMaker().file("a", "x").hard_link("b", "a").hard_link("c", "a");
  auto const rows = Stack({lower, TarMaker().file(".wh.a")}).rows();
  CHECK(rows.at("/b").nlink == 2);
  CHECK(rows.at("/c").nlink == 2);
}

TEST_CASE("A hard link may lead to a lower layer's file", "[tarindex][merge]") {
  Stack const stack({TarMaker().file("usr/a", "x"), TarMaker().hard_link("b", "usr/a")});
  CHECK(stack.rows().at("/b").nlink == 2);
  CHECK(stack.merged().reports.count() == 0);

  Stack const gone({TarMaker().file("a"), TarMaker().file(".wh.a").hard_link("b", "a")});
  CHECK(gone.paths() == Paths{"/"});

  Stack const directory({TarMaker().dir("a"), TarMaker().hard_link("b", "a")});
  CHECK(directory.paths() == Paths{"/", "/a"});
  CHECK(directory.merged().reports.count() == 1);
}

TEST_CASE("A directory in place of what has replaced a lower one begins empty",
          "[tarindex][merge]") {
  auto const lower = TarMaker().file("a/b").file("c", "x");

  CHECK(Stack({lower, TarMaker().file("a").dir("a")}).paths() == Paths{"/", "/a", "/c"});
  CHECK(Stack({lower, TarMaker().hard_link("a", "c").dir("a")}).paths() == Paths{"/", "/a", "/c"});
  CHECK(Stack({lower, TarMaker().hard_link("a", "d").dir("a").file("d")}).paths() ==
        Paths{"/", "/a", "/c", "/d"});
}

TEST_CASE("A hard link keeps a lower file whose name goes later in its layer",
          "[tarindex][merge]") {
  auto const lower = TarMaker().dir("p").file("p/a", "lower");
  auto const size_of_q = [&](TarMaker const& upper) {
    Stack const stack({lower, upper});
    CHECK(stack.merged().reports.count() == 0);
    return stack.rows().at("/q").size;
  };
  CHECK(size_of_q(TarMaker().hard_link("q", "p/a").file("p/.wh.a")) == 5);
  CHECK(size_of_q(TarMaker().hard_link("q", "p/a").file(".wh.p")) == 5);
  CHECK(size_of_q(TarMaker().hard_link("q", "p/a").file("p/.wh..wh..opq")) == 5);
  CHECK(size_of_q(TarMaker().hard_link("q", "p/a").file("p/a", "a new one")) == 5);
  CHECK(size_of_q(TarMaker().hard_link("r", "p/a").hard_link("q", "r").file("p/.wh.a")) == 5);
  CHECK(size_of_q(TarMaker().file("p/a", "a new one").hard_link("q", "p/a")) == 9);
  CHECK(size_of_q(TarMaker().file("p/.wh.a").file("p/a", "a new one").hard_link("q", "p/a")) == 9);
  CHECK(size_of_q(TarMaker().hard_link("q", "p/b").file("p/b", "a new one")) == 9);
  // Links that lead to each other, or to what has been linked anew since.
  CHECK(size_of_q(TarMaker().hard_link("q", "p/a").hard_link("q", "q")) == 5);
  CHECK(size_of_q(TarMaker().hard_link("q", "p/a").hard_link("p/a", "q")) == 5);
  CHECK(size_of_q(TarMaker()
                      .hard_link("r", "p/a")
                      .hard_link("p/a", "p/c")
                      .hard_link("q", "r")
                      .file("p/c", "a new one")) == 5);
  CHECK(size_of_q(TarMaker().hard_link("p", "p/a").hard_link("q", "p").file(".wh.p")) == 5);
}

TEST_CASE("An implied directory over a link is what the link leads to", "[tarindex][merge]") {
  auto const lower = TarMaker().dir("usr/lib", 0700).symlink("lib", "usr/lib");
  Stack const stack({lower, TarMaker().file("lib/x/y").file("lib/.wh.z")});
  CHECK(stack.paths() == Paths{"/", "/lib", "/usr", "/usr/lib", "/usr/lib/x", "/usr/lib/x/y"});
  CHECK(stack.rows().at("/lib").type == "lnk");
  CHECK(stack.rows().at("/usr/lib").mode == 0700);

  // a whiteout behind the link, and a link that a member of the same layer leads elsewhere
  CHECK(
      Stack({TarMaker().file("usr/lib/z").symlink("lib", "usr/lib"), TarMaker().file("lib/.wh.z")})
          .paths() == Paths{"/", "/lib", "/usr", "/usr/lib"});
  CHECK(Stack({lower, TarMaker().file("lib/x").symlink("usr/lib", "../opt").dir("opt")}).paths() ==
        Paths{"/", "/lib", "/opt", "/opt/x", "/usr", "/usr/lib"});
}

TEST_CASE("A described directory over a link replaces it", "[tarindex][merge]") {
  auto const lower = TarMaker().dir("usr/lib").symlink("lib", "usr/lib");
  CHECK(Stack({lower, TarMaker().dir("lib").file("lib/x")}).paths() ==
        Paths{"/", "/lib", "/lib/x", "/usr", "/usr/lib"});
}

TEST_CASE("Links that lead nowhere or round give way to directories", "[tarindex][merge]") {
  CHECK(Stack({TarMaker().symlink("lib", "none"), TarMaker().file("lib/x")}).paths() ==
        Paths{"/", "/lib", "/lib/x"});
  CHECK(Stack({TarMaker().symlink("lib", "lib"), TarMaker().file("lib/x")}).paths() ==
        Paths{"/", "/lib", "/lib/x"});
  CHECK(Stack({TarMaker().file("f").symlink("lib", "f"), TarMaker().file("lib/x")}).paths() ==
        Paths{"/", "/f", "/lib", "/lib/x"});
  CHECK(Stack({TarMaker().symlink("a", "."), TarMaker().file("a/a/a/x")}).paths() ==
        Paths{"/", "/a", "/x"});
}

TEST_CASE("Only layers that still give data are devices", "[tarindex][merge]") {
  Stack const stack({TarMaker().file("hidden", "x"), TarMaker().dir("d").file("empty"),
                     TarMaker().file("kept", "y"), TarMaker().file(".wh.hidden").file("top", "z")});

  auto const merged = stack.merged();

  CHECK(merged.layers == std::vector<std::size_t>{2, 3});
  CHECK(merged.devices == std::vector<erofs::Device>{{3, "layer2"}, {4, "layer3"}});
  auto const device = [&](std::string_view name) {
    return merged.tree[*merged.tree.find(erofs::root_id, name)].regular()->extents.at(0).device;
  };
  CHECK(device("kept") == 1);
  CHECK(device("top") == 2);
  CHECK(stack.rows().at("/kept").sha256 == digest_of(as_bytes("y")).hex());
}

TEST_CASE("MergedMarks may stay, so that the tree can lie over others", "[tarindex][merge]") {
  Stack const stack({TarMaker().file("d/a").file("e/f").file(".wh.low"),
                     TarMaker().file("d/.wh.a").file(".wh.e").file("o/.wh..wh..opq"),
                     TarMaker().file("e/new").file(".wh..wh..opq")});
  auto const rows = Stack({TarMaker().file("d/a").file("e/f").file(".wh.low"),
                           TarMaker().file("d/.wh.a").file(".wh.e").file("o/.wh..wh..opq"),
                           TarMaker().file("e/new")})
                        .rows(MergedMarks::keep);

  CHECK(rows.at("/low").rdev == "0:0");
  CHECK(rows.at("/d/a").rdev == "0:0");
  CHECK(rows.at("/o").xattrs.at("trusted.overlay.opaque") == "y");
  CHECK(rows.at("/e").xattrs.at("trusted.overlay.opaque") == "y");
  CHECK(stack.merged(MergedMarks::keep).tree.root().directory()->opaque);
  CHECK_FALSE(stack.merged().tree.root().directory()->opaque);
}

TEST_CASE("A tower of directories does not exhaust the stack", "[tarindex][merge]") {
  std::string deep;
  for (int i = 0; i < 2000; ++i) deep += "d/";
  auto const layer = TarMaker().pax({{"path", deep + "f"}}).file("f", "x");
  CHECK(Stack({layer, layer}).merged().layers == std::vector<std::size_t>{1});
}

// ---------------------------------------------------------------------------------------------
// Properties

std::string any_path() {
  auto const depth = *rc::gen::inRange(1, 4);
  std::string path;
  for (int i = 0; i < depth; ++i) {
    if (i > 0) path += "/";
    path += *rc::gen::element<std::string>("a", "b", "c");
  }
  return path;
}

testing::UnpackStep any_step(unsigned stamp) {
  testing::UnpackStep step{*rc::gen::weightedElement<tar::Type>({{4, tar::Type::regular},
                                                                 {4, tar::Type::directory},
                                                                 {2, tar::Type::hard_link},
                                                                 {1, tar::Type::fifo}}),
                           any_path(),
                           {},
                           stamp};
  if (step.type == tar::Type::hard_link) step.link = any_path();
  auto const mark = *rc::gen::inRange(0, 10);
  auto const slash = step.path.rfind('/') + 1;  // npos + 1 is 0
  if (mark < 2) step.path.insert(slash, ".wh.");
  if (mark == 2) step.path.replace(slash, std::string::npos, ".wh..wh..opq");
  if (mark <= 2) step.type = tar::Type::regular;
  return step;
}

TEST_CASE("A merge is what unpacking layer after layer leaves", "[tarindex][merge][property]") {
  rc::prop("for all layers of files, directories, hard links, FIFOs, whiteouts and opaque marks",
           [] {
             auto const count = *rc::gen::inRange<std::size_t>(1, 5);
             testing::LayerUnpacker unpacker;
             std::vector<Layer> layers;
             for (std::size_t i = 0; i < count; ++i) {
               auto const length = *rc::gen::inRange(0, 12);
               std::vector<testing::UnpackStep> steps;
               LayerBuilder builder;
               for (int k = 0; k < length; ++k) {
                 steps.push_back(
                     any_step(static_cast<unsigned>((i + 1) * 1000) + static_cast<unsigned>(k)));
               }
               unpacker.unpack(steps, i);
               for (std::size_t k = 0; k < steps.size(); ++k) {
                 RC_ASSERT(builder.apply(testing::entry_of(steps[k], k)).has_value());
               }
               layers.push_back(std::move(builder).finish());
             }
             std::vector<MergeInput> inputs;
             for (auto const& layer : layers) inputs.push_back({&layer, {}});

             auto const merged = merge(inputs);

             RC_ASSERT(merged.has_value());
             RC_ASSERT(merged->reports.count() == 0u);
             auto const ours = testing::listing_of(*merged);
             RC_ASSERT(ours == testing::listing_of(unpacker));
             std::set<std::size_t> giving;
             for (auto const& [path, file] : ours) {
               if (std::get<0>(file) == tar::Type::regular)
                 giving.insert(std::get<1>(file) / 1000 - 1);
             }
             RC_ASSERT(std::ranges::equal(giving, merged->layers));

             Merging merging;
             for (auto& layer : layers) merging.add(std::move(layer), {});
             auto const again = std::move(merging).finish();
             RC_ASSERT(again.has_value());
             RC_ASSERT(again->layers == merged->layers);
             RC_ASSERT(testing::listing_of(*again) == ours);
           });
}

}  // namespace merge_test
}  // namespace erofs_oci::tarindex
