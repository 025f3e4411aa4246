// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tarindex/merge.hpp>  // first: proves that the header stands alone

#include <catch2/catch.hpp>
#include <rapidcheck/catch.h>

#include <memory>
#include <set>

#include "support.hpp"

namespace erofs_oci::tarindex {
namespace {

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

  [[nodiscard]] Merged merged(Marks marks = Marks::strip) const {
    std::vector<MergeInput> inputs;
    for (auto const& layer : layers) {
      inputs.push_back({&layer, {inputs.size() + 1, "layer" + std::to_string(inputs.size())}});
    }
    auto out = merge(inputs, marks);
    REQUIRE(out);
    return *std::move(out);
  }

  [[nodiscard]] Rows rows(Marks marks = Marks::strip) const {
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
  CHECK(gone.merged().reports.count() == 1);

  Stack const directory({TarMaker().dir("a"), TarMaker().hard_link("b", "a")});
  CHECK(directory.paths() == Paths{"/", "/a"});
  CHECK(directory.merged().reports.count() == 1);
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

TEST_CASE("Marks may stay, so that the tree can lie over others", "[tarindex][merge]") {
  Stack const stack({TarMaker().file("d/a").file("e/f").file(".wh.low"),
                     TarMaker().file("d/.wh.a").file(".wh.e").file("o/.wh..wh..opq"),
                     TarMaker().file("e/new").file(".wh..wh..opq")});
  auto const rows = Stack({TarMaker().file("d/a").file("e/f").file(".wh.low"),
                           TarMaker().file("d/.wh.a").file(".wh.e").file("o/.wh..wh..opq"),
                           TarMaker().file("e/new")})
                        .rows(Marks::keep);

  CHECK(rows.at("/low").rdev == "0:0");
  CHECK(rows.at("/d/a").rdev == "0:0");
  CHECK(rows.at("/o").xattrs.at("trusted.overlay.opaque") == "y");
  CHECK(rows.at("/e").xattrs.at("trusted.overlay.opaque") == "y");
  CHECK(stack.merged(Marks::keep).tree.root().directory()->opaque);
  CHECK_FALSE(stack.merged().tree.root().directory()->opaque);
}

TEST_CASE("A tower of directories does not exhaust the stack", "[tarindex][merge]") {
  std::string deep;
  for (int i = 0; i < 2000; ++i) deep += "d/";
  auto const layer = TarMaker().pax({{"path", deep + "f"}}).file("f", "x");
  CHECK(Stack({layer, layer}).merged().layers == std::vector<std::size_t>{1});
}

// ---------------------------------------------------------------------------------------------
// The oracle: layers unpacked one after another into a file system of maps, as OCI tells it.

/// A member, reduced to what matters here. `stamp` is unlike that of any other member.
struct Step {
  tar::Type type = tar::Type::regular;
  std::string path;
  std::string link;
  unsigned stamp = 0;
};

struct File {
  tar::Type type = tar::Type::directory;
  unsigned stamp = 0;     // 0: nobody described this directory
  std::size_t layer = 0;  // that made it
  std::map<std::string, std::shared_ptr<File>> names;
};

using FilePtr = std::shared_ptr<File>;

class Unpacker {
 public:
  /// False if an unpacker would stop with an error.
  bool unpack(std::vector<Step> const& steps, std::size_t layer) {
    layer_ = layer;
    for (auto const& step : steps) remove(step.path);
    return std::ranges::all_of(steps, [&](Step const& step) { return add(step); });
  }

  [[nodiscard]] FilePtr root() const { return root_; }

 private:
  static std::pair<std::vector<std::string>, std::string> cut(std::string const& path) {
    std::vector<std::string> parents;
    std::istringstream in(path);
    for (std::string part; std::getline(in, part, '/');) parents.push_back(part);
    auto name = parents.back();
    parents.pop_back();
    return {parents, name};
  }

  /// First all that the layer takes away from those below...
  void remove(std::string const& path) {
    auto const [parents, name] = cut(path);
    if (!name.starts_with(".wh.")) return;
    auto where = root_;
    for (auto const& part : parents) {
      if (!where->names.contains(part)) return;
      where = where->names[part];
      if (where->type != tar::Type::directory) return;
    }
    if (name == ".wh..wh..opq") {
      where->names.clear();
    } else {
      where->names.erase(name.substr(4));
    }
  }

  /// ... then what it brings.
  bool add(Step const& step) {
    auto const [parents, name] = cut(step.path);
    auto where = root_;
    for (auto const& part : parents) {
      auto& next = where->names[part];
      if (next && next->type != tar::Type::directory && next->layer == layer_) return false;
      if (!next || next->type != tar::Type::directory) {
        next = std::make_shared<File>(File{tar::Type::directory, 0, layer_, {}});
      }
      where = next;
    }
    if (name.starts_with(".wh.")) return true;
    if (step.type == tar::Type::hard_link) {
      auto const target = own(step.link);
      if (target && target->type != tar::Type::directory) where->names[name] = target;
      return true;
    }
    auto& place = where->names[name];
    if (place && place->type == tar::Type::directory && step.type == tar::Type::directory) {
      place->stamp = step.stamp;
      return true;
    }
    place = std::make_shared<File>(File{step.type, step.stamp, layer_, {}});
    return true;
  }

 public:
  /// A file that this layer has made.
  FilePtr own(std::string const& path) const {
    auto const [parents, name] = cut(path);
    auto where = root_;
    for (auto const& part : parents) {
      if (!where->names.contains(part)) return nullptr;
      where = where->names[part];
    }
    if (!where->names.contains(name)) return nullptr;
    auto const file = where->names[name];
    return file->layer == layer_ ? file : nullptr;
  }

 private:
  FilePtr root_ = std::make_shared<File>();
  std::size_t layer_ = 0;
};

/// Path to type, stamp and the first path of the same file.
using Listing = std::map<std::string, std::tuple<tar::Type, unsigned, std::string>>;

void list(FilePtr const& file, std::string const& path, std::map<File*, std::string>& first,
          Listing& out) {
  auto const known = first.try_emplace(file.get(), path).first->second;
  out[path] = {file->type, file->stamp, known};
  for (auto const& [name, child] : file->names) list(child, path + "/" + name, first, out);
}

void list(Merged const& merged, erofs::NodeId id, std::string const& path,
          std::map<erofs::NodeId, std::string>& first, Listing& out) {
  auto const& node = merged.tree[id];
  auto const known = first.try_emplace(id, path).first->second;
  auto const type = node.kind == erofs::Kind::directory ? tar::Type::directory
                    : node.kind == erofs::Kind::regular ? tar::Type::regular
                                                        : tar::Type::fifo;
  auto const stamp = static_cast<unsigned>(node.mtime.seconds);
  out[path] = {type, stamp, known};
  if (auto const* const file = node.regular()) {  // its data are where its own layer has them
    RC_ASSERT(file->extents.size() == 1);
    RC_ASSERT(merged.layers.at(file->extents[0].device - 1) == stamp / 1000 - 1);
    RC_ASSERT(file->extents[0].device_offset == stamp * 512u);
  }
  auto const* const directory = node.directory();
  if (directory == nullptr) return;
  RC_ASSERT_FALSE(directory->opaque);
  if (directory->implied) RC_ASSERT(stamp == 0u && node.permissions == 0755);
  for (auto const& [name, child] : directory->children) {
    RC_ASSERT(merged.tree[child].kind != erofs::Kind::whiteout);
    list(merged, child, path + "/" + name, first, out);
  }
}

tar::Entry entry_of(Step const& step) {
  tar::Entry entry;
  entry.type = step.type;
  entry.path = step.path;
  entry.link = step.link;
  entry.mode = 0755;
  entry.mtime.seconds = step.stamp;
  if (step.type == tar::Type::regular) {
    entry.size = 512;
    entry.extents = {{0, step.stamp * 512u, 512}};
  }
  return entry;
}

std::string any_path() {
  auto const depth = *rc::gen::inRange(1, 4);
  std::string path;
  for (int i = 0; i < depth; ++i) {
    if (i > 0) path += "/";
    path += *rc::gen::element<std::string>("a", "b", "c");
  }
  return path;
}

Step any_step(unsigned stamp) {
  Step step{*rc::gen::weightedElement<tar::Type>({{4, tar::Type::regular},
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
  rc::prop(
      "for all layers of files, directories, hard links, FIFOs, whiteouts and opaque marks", [] {
        auto const count = *rc::gen::inRange<std::size_t>(1, 5);
        Unpacker unpacker;
        std::vector<Layer> layers;
        for (std::size_t i = 0; i < count; ++i) {
          auto const length = *rc::gen::inRange(0, 12);
          std::vector<Step> steps;
          LayerBuilder builder;
          auto built = true;
          auto unpacked = true;
          // One at a time would remove too late: plan the layer first, links by a trial of their
          // own.
          for (int k = 0; k < length; ++k) {
            auto step = any_step(static_cast<unsigned>((i + 1) * 1000) + static_cast<unsigned>(k));
            if (step.type == tar::Type::hard_link) {
              Unpacker trial;
              if (!trial.unpack(steps, 0)) break;
              auto const target = trial.own(step.link);
              if (!target || target->type == tar::Type::directory) continue;
            }
            steps.push_back(std::move(step));
          }
          unpacked = unpacker.unpack(steps, i);
          for (auto const& step : steps) built = built && builder.apply(entry_of(step)).has_value();
          RC_ASSERT(built == unpacked);
          if (!built) RC_DISCARD("a file in the way");
          layers.push_back(std::move(builder).finish());
        }
        std::vector<MergeInput> inputs;
        for (auto const& layer : layers) inputs.push_back({&layer, {}});

        auto const merged = merge(inputs);

        RC_ASSERT(merged.has_value());
        RC_ASSERT(merged->reports.count() == 0u);
        Listing ours;
        Listing expected;
        std::map<erofs::NodeId, std::string> our_first;
        std::map<File*, std::string> first;
        list(*merged, erofs::root_id, "", our_first, ours);
        list(unpacker.root(), "", first, expected);
        RC_ASSERT(ours == expected);
        std::set<std::size_t> giving;
        for (auto const& [path, file] : ours) {
          if (std::get<0>(file) == tar::Type::regular) giving.insert(std::get<1>(file) / 1000 - 1);
        }
        RC_ASSERT(std::ranges::equal(giving, merged->layers));
      });
}

}  // namespace
}  // namespace erofs_oci::tarindex
