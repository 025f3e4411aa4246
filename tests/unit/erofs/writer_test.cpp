// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/erofs/writer.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/erofs/fsck.hpp>
#include <erofs_oci/erofs/load.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/sparse.hpp>

#include "trees.hpp"

namespace erofs_oci::erofs {
namespace writer_test {

using test::Oracle;
using test::Seen;
using test::SeenTree;

/// What the reader shows, in the oracle's form.
template <class S>
SeenTree seen_by(Reader<S> const& reader, Tree const& tree) {
  SeenTree all;
  std::map<std::uint64_t, std::string> first;
  std::map<std::uint64_t, Regular const*> files;
  auto const ok = walk(reader, [&](Visit const& at) {
    auto const path = at.path == "/" ? std::string() : at.path;
    RC_ASSERT(at.error == nullptr);
    auto const& inode = *at.inode;
    first.emplace(at.nid, path);
    Seen s;
    s.mode = inode.mode();
    s.uid = inode.record.uid;
    s.gid = inode.record.gid;
    s.seconds = inode.mtime.seconds;
    s.nanoseconds = inode.mtime.nanoseconds;
    s.links = inode.record.links;
    s.size = inode.is_directory() ? 0 : inode.size();
    s.major = inode.device().major;
    s.minor = inode.device().minor;
    s.first_name = first[at.nid];
    if (inode.is_symlink()) s.target = reader.read_link(inode).value();
    auto const xattrs = reader.xattrs(inode).value();
    for (auto const& xattr : xattrs) s.xattrs[xattr.name] = as_text(xattr.value);
    if (inode.is_regular()) {
      // The same file of the tree, for where to look.
      auto id = root_id;
      for (std::size_t i = 0; i < path.size();) {
        auto const end = std::min(path.find('/', i + 1), path.size());
        id = *tree.find(id, path.substr(i + 1, end - i - 1));
        i = end;
      }
      for (auto const& [offset, length] : test::probes(*tree[id].regular())) {
        std::string bytes(static_cast<std::size_t>(length), '\0');
        auto const n = reader.read(inode, offset, std::as_writable_bytes(std::span(bytes)));
        RC_ASSERT(n.has_value());
        RC_ASSERT(*n == bytes.size());
        s.content += bytes;
      }
    }
    all[path] = std::move(s);
    return Step::enter;
  });
  RC_ASSERT(ok.has_value());
  return all;
}

std::vector<AnySource> sources_of(std::vector<Bytes> const& devices) {
  std::vector<AnySource> sources;
  for (auto const& bytes : devices) sources.emplace_back(Memory(bytes));
  return sources;
}

Bytes flat_of(Bytes image, std::vector<Bytes> const& devices) {
  for (auto const& bytes : devices) image.insert(image.end(), bytes.begin(), bytes.end());
  return image;
}

void same(SeenTree const& found, SeenTree const& expected) {
  for (auto const& [path, seen] : expected) {
    if (!found.contains(path)) RC_FAIL("missing: " + hex(as_bytes(path)));
    std::ostringstream text;
    text << hex(as_bytes(path)) << "\n" << found.at(path) << "\n" << seen;
    if (!(found.at(path) == seen)) RC_FAIL(text.str());
  }
  RC_ASSERT(found.size() == expected.size());
}

TEST_CASE("Reader shows the tree that Writer was given", "[erofs][writer][property]") {
  rc::prop("for all trees, marks, encodings and alignments", [] {
    auto const seed = *rc::gen::arbitrary<std::uint64_t>();
    auto const entries = *rc::gen::element<std::size_t>(0, 1, 5, 40, 150);
    auto const made = test::TreeMaker(seed, entries).make();
    WriteOptions options;
    options.marks = *rc::gen::element(Marks::drop, Marks::trusted, Marks::user);
    options.addressing = *rc::gen::element(Addressing::device_table, Addressing::absolute);
    options.alignment = *rc::gen::element<std::uint64_t>(512, 4096);
    options.implied = *rc::gen::element(Implied::forget, Implied::keep);

    auto const writer = Writer::make(made.tree, made.devices, options);
    if (!writer) RC_FAIL(writer.error().message());
    auto const image = writer->to_bytes();

    RC_ASSERT(image.size() == writer->size());
    RC_ASSERT(image.size() % options.alignment == 0);
    auto const expected = Oracle(made.tree, made.bytes, options.marks).all();
    auto const flat = Reader<Memory>::open(Memory(flat_of(image, made.bytes)));
    if (!flat) RC_FAIL(flat.error().message());
    same(seen_by(*flat, made.tree), expected);
    auto const findings = check(*flat, {.data = true});
    RC_ASSERT(findings.has_value());
    if (!findings->sound()) RC_FAIL(findings->list.front().text);
    if (options.addressing == Addressing::absolute) return;
    auto const split = Reader<Memory>::open(Memory(image), sources_of(made.bytes));
    if (!split) RC_FAIL(split.error().message());
    same(seen_by(*split, made.tree), expected);
  });
}

/// All but extents, which may come back joined, and xattrs that no image can hold.
void same_names(Tree const& found, Tree const& expected) {
  auto const storable = [](Node const& node) {
    std::map<std::string, Bytes> all;
    for (auto const& [name, value] : node.xattrs) {
      if (split_name(name)) all.emplace(name, value);
    }
    return all;
  };
  std::vector<std::pair<NodeId, NodeId>> todo{{root_id, root_id}};
  while (!todo.empty()) {
    auto const [a, b] = todo.back();
    todo.pop_back();
    RC_ASSERT(found[a].kind == expected[b].kind);
    RC_ASSERT(storable(found[a]) == storable(expected[b]));
    auto const* const directory = found[a].directory();
    if (directory == nullptr) continue;
    RC_ASSERT(directory->opaque == expected[b].directory()->opaque);
    RC_ASSERT(directory->implied == expected[b].directory()->implied);
    RC_ASSERT(directory->children.size() == expected[b].directory()->children.size());
    for (auto const& [name, id] : directory->children) {
      auto const* const other = expected.find(b, name);
      RC_ASSERT(other != nullptr);
      todo.emplace_back(id, *other);
    }
  }
}

TEST_CASE("An image that is loaded and written again is the same",
          "[erofs][writer][load][property]") {
  rc::prop("for all trees with marks and implied directories", [] {
    auto const seed = *rc::gen::arbitrary<std::uint64_t>();
    auto const made = test::TreeMaker(seed, *rc::gen::element<std::size_t>(0, 3, 60)).make();
    auto const marks = *rc::gen::element(Marks::trusted, Marks::user);
    WriteOptions const options{.marks = marks, .implied = Implied::keep};
    auto const first = Writer::make(made.tree, made.devices, options)->to_bytes();

    auto const reader = Reader<Memory>::open(Memory(first));
    RC_ASSERT(reader.has_value());
    auto const loaded = load_tree(*reader, marks);
    if (!loaded) RC_FAIL(loaded.error().message());
    same_names(*loaded, made.tree);
    auto const again = Writer::make(*loaded, made.devices, options);
    if (!again) RC_FAIL(again.error().message());

    auto const equal = again->to_bytes() == first;  // not in the macro, which would print both
    RC_ASSERT(equal);
  });
}

TEST_CASE("Writer gives the same bytes whatever the order of insertion", "[erofs][writer]") {
  Tree a;
  auto const d = a.add(root_id, "dir", make_node(Kind::directory));
  auto const f = a.add(d, "x", make_node(Kind::fifo));
  a.link(root_id, "y", f);
  Tree b;
  auto const g = b.add(root_id, "y", make_node(Kind::fifo));
  b.add(root_id, "gone", make_node(Kind::fifo));
  b.unlink(root_id, "gone");
  auto const e = b.add(root_id, "dir", make_node(Kind::directory));
  b.link(e, "x", g);

  auto const first = Writer::make(a, {})->to_bytes();

  CHECK(Writer::make(b, {})->to_bytes() == first);
  CHECK(Writer::make(a, {})->to_bytes() == first);
  // What a machine of another kind must give, too.
  CHECK(crc32c(first) == 0xa2692c18);
}

Tree one_file(Regular file) {
  Tree tree;
  auto node = make_node(Kind::regular);
  *node.regular() = std::move(file);
  tree.add(root_id, "f", std::move(node));
  return tree;
}

Inode inode_of(Reader<Memory> const& reader, std::string_view path) {
  return find(reader, path).value();
}

Reader<Memory> written(Tree const& tree, std::vector<Device> devices = {},
                       WriteOptions options = {}) {
  auto const writer = Writer::make(tree, std::move(devices), std::move(options));
  INFO((writer ? std::string() : writer.error().message()));
  REQUIRE(writer.has_value());
  return Reader<Memory>::open(Memory(writer->to_bytes())).value();
}

TEST_CASE("A time that is the epoch but for its nanoseconds keeps them", "[erofs][writer]") {
  Tree tree;
  for (char c = 'a'; c < 'f'; ++c) {
    auto node = make_node(Kind::fifo);
    node.mtime = {1'700'000'000, c == 'c' ? 123'456'789u : 0u};
    tree.add(root_id, std::string(1, c), node);
  }

  auto const reader = written(tree);

  CHECK(reader.superblock().epoch == 1'700'000'000);
  CHECK(inode_of(reader, "a").mtime == Time{1'700'000'000, 0});
  CHECK_FALSE(inode_of(reader, "a").record.extended());
  CHECK(inode_of(reader, "c").mtime == Time{1'700'000'000, 123'456'789});
  CHECK(inode_of(reader, "c").record.extended());
}

TEST_CASE("A tree without a root of its own gets a sane one", "[erofs][writer]") {
  auto const reader = written(Tree());

  auto const root = reader.root().value();

  CHECK(root.mode() == (mode::directory | 0755));
  CHECK(root.record.uid == 0);
  CHECK(root.mtime == Time{0, 0});
}

TEST_CASE("An xattr value of 65,535 bytes is kept and one of 65,536 is refused",
          "[erofs][writer][error]") {
  Tree tree;
  tree.root().xattrs.push_back({"user.big", Bytes(65535, std::byte{7})});
  auto const reader = written(tree);
  CHECK(reader.xattrs(reader.root().value()).value() == tree.root().xattrs);

  tree.root().xattrs.front().value.push_back(std::byte{7});
  auto const refused = Writer::make(tree, {});

  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Errc::invalid_argument);
  CHECK_THAT(refused.error().message(), Catch::Contains("/") && Catch::Contains("user.big"));
}

TEST_CASE("The xattrs of an inode hold 262,148 bytes and not 4 more", "[erofs][writer][error]") {
  Tree tree;
  for (char c = 'a'; c < 'e'; ++c) {
    tree.root().xattrs.push_back(
        {std::string("user.") + c, Bytes(65529)});  // 65,536 with head, name, padding
  }
  tree.root().xattrs.back().value.resize(
      65521);  // 65,528, and 12 of the area's head... 262,148 in all
  auto const area = 12 + 3 * std::size_t{65536} + 65528;
  REQUIRE(area == 262148);
  auto const reader = written(tree);
  CHECK(reader.xattrs(reader.root().value()).value() == tree.root().xattrs);

  tree.root().xattrs.back().value.resize(65524);

  CHECK(Writer::make(tree, {}).error().code == Errc::invalid_argument);
}

TEST_CASE("Unknown xattr namespaces are left out and reported", "[erofs][writer]") {
  Tree tree;
  auto node = make_node(Kind::fifo);
  node.xattrs = {{"btrfs.x", {}},
                 {"user.x", {}},
                 {"user.", {}},
                 {"system.nfs4_acl", {}},
                 {"system.posix_acl_access", Bytes(4)}};
  tree.add(root_id, "f", node);

  auto const writer = Writer::make(tree, {});

  REQUIRE(writer.has_value());
  CHECK(writer->dropped_xattr_count() == 3);
  CHECK(writer->dropped_xattrs() ==
        std::vector<DroppedXattr>{{"/f", "btrfs.x"}, {"/f", "system.nfs4_acl"}, {"/f", "user."}});
  auto const reader = Reader<Memory>::open(Memory(writer->to_bytes())).value();
  CHECK(reader.xattrs(inode_of(reader, "f")).value() ==
        std::vector<Xattr>{{"system.posix_acl_access", Bytes(4)}, {"user.x", {}}});
}

TEST_CASE("Writer refuses what no image can hold and names it", "[erofs][writer][error]") {
  auto const refusal = [](Tree const& tree, std::vector<Device> devices = {{8, ""}},
                          WriteOptions options = {}) {
    auto const writer = Writer::make(tree, std::move(devices), std::move(options));
    REQUIRE_FALSE(writer.has_value());
    return writer.error().message();
  };
  using Catch::Contains;

  for (auto const& name : {std::string(), std::string("."), std::string(".."), std::string("a/b"),
                           std::string("a\0b", 3), std::string(256, 'x')}) {
    Tree tree;
    tree.add(root_id, name, make_node(Kind::fifo));
    CHECK_THAT(refusal(tree), Contains("entry's name"));
  }
  for (auto const& target : {std::string(), std::string(4096, 't'), std::string("a\0", 2)}) {
    Tree tree;
    auto node = make_node(Kind::symlink);
    node.content = Symlink{target};
    tree.add(root_id, "l", node);
    CHECK_THAT(refusal(tree), Contains("/l: a link's target"));
  }
  CHECK_THAT(refusal(one_file({512, {{0, 512, 2, 0}}, {}})),
             Contains("/f: extent at 0 is on device 2"));
  CHECK_THAT(refusal(one_file({512, {{0, 512, 1, 3700}}, {}})), Contains("leaves its device"));
  CHECK_THAT(refusal(one_file({512, {{0, 512, 1, ~0ull}}, {}})), Contains("leaves its device"));
  CHECK_THAT(refusal(one_file({512, {{0, 512, 1, 100}}, {}})), Contains("does not fill blocks"));
  CHECK_THAT(refusal(one_file({900, {{100, 512, 1, 0}}, {}})), Contains("does not fill blocks"));
  CHECK_THAT(refusal(one_file({900, {{0, 100, 1, 0}}, {}})), Contains("does not fill blocks"));
  CHECK_THAT(refusal(one_file({900, {{0, 901, 1, 0}}, {}})), Contains("leaves the file"));
  CHECK_THAT(refusal(one_file({900, {{512, 388, 1, 0}, {0, 1, 1, 0}}, {}})),
             Contains("out of order"));
  CHECK_THAT(refusal(one_file({1024, {{0, 1024, 0, 0}}, Bytes(512)})),
             Contains("leaves its device"));
  CHECK_THAT(refusal(one_file({100, {{0, 100, 0, 0}}, Bytes(100)})), Contains("no whole blocks"));
  CHECK_THAT(refusal(one_file({1ull << 63, {}, {}})), Contains("2^63"));
  CHECK_THAT(refusal(one_file({1ull << 62, {{512, 512, 1, 0}}, {}})), Contains("chunks"));
  CHECK_THAT(refusal(Tree(), {{0xFFFFFFFE, ""}}), Contains("2 TiB"));
  CHECK_THAT(refusal(Tree(), {{~0ull, ""}}), Contains("2 TiB"));
  CHECK_THAT(refusal(Tree(), {{1, std::string(65, 't')}}), Contains("tag"));
  CHECK_THAT(refusal(Tree(), {}, {.alignment = 100}), Contains("alignment"));
}

TEST_CASE("Writer refuses a directory with two parents, and a cycle", "[erofs][writer][error]") {
  Tree twice;
  auto const d = twice.add(root_id, "a", make_node(Kind::directory));
  twice.link(root_id, "b", d);
  CHECK_THAT(Writer::make(twice, {}).error().message(), Catch::Contains("two parents"));

  Tree cycle;
  auto const e = cycle.add(root_id, "a", make_node(Kind::directory));
  cycle.link(e, "up", root_id);
  CHECK_THAT(Writer::make(cycle, {}).error().message(), Catch::Contains("/a: 'up'"));
}

TEST_CASE("A sparse file costs chunks of its own granularity", "[erofs][writer]") {
  // 1 GiB with data at two places that are multiples of 1 MiB.
  auto const reader = written(
      one_file({1u << 30, {{1u << 20, 1u << 20, 1, 512}, {5u << 20, 1024, 1, 1u << 20}}, {}}),
      {{1u << 20, ""}});

  auto const file = inode_of(reader, "f");
  std::vector<Run> runs;
  REQUIRE(reader.runs(file, 0, file.size(), [&](Run const& run) -> Result<bool> {
    runs.push_back(run);
    return true;
  }));

  // The second extent's end, 5 MiB and 1,024 bytes, is what decides.
  CHECK(file.chunk_format().bits() == 1);
  REQUIRE(runs.size() == 5);
  CHECK_FALSE(runs[0].place.has_value());
  CHECK(runs[1].place == Place{1, 512});
  CHECK(runs[1].length == 1u << 20);
  CHECK(runs[3].place == Place{1, 1u << 20});
  CHECK(runs[3].length == 1024);
  CHECK(runs[4].file_offset + runs[4].length == 1u << 30);
}

TEST_CASE("A file of more than 1 TiB has several chunks", "[erofs][writer]") {
  auto const size = (3ull << 39) + 77;  // 1.5 TiB
  auto const reader = written(one_file({size, {{0, size, 1, 512}}, {}}), {{3500000000, ""}});

  auto const file = inode_of(reader, "f");

  CHECK(file.record.extended());
  CHECK(file.chunk_format().bits() == 31);
  std::vector<Run> runs;
  REQUIRE(reader.runs(file, 0, size, [&](Run const& run) -> Result<bool> {
    runs.push_back(run);
    return true;
  }));
  REQUIRE(runs.size() == 1);
  CHECK(runs[0].place == Place{1, 512});
  CHECK(runs[0].length == size);
}

TEST_CASE("A device table of any size leaves the root a nid of 16 bits", "[erofs][writer]") {
  for (std::size_t const count : {1u, 5000u, 65535u}) {
    auto tree = one_file({100, {{0, 100, static_cast<std::uint32_t>(count), 0}}, {}});

    auto const writer = Writer::make(tree, std::vector<Device>(count, Device{1, ""}));

    REQUIRE(writer.has_value());
    std::map<std::uint64_t, Bytes> extents{{0, writer->to_bytes()},
                                           {writer->flat_offset(count - 1), to_bytes("hello")}};
    testing::Sparse flat(writer->flat_size(), std::move(extents));
    auto const reader = Reader<testing::Sparse>::open(std::move(flat));
    REQUIRE(reader.has_value());
    Bytes out(5);
    auto const file = find(*reader, "f");
    REQUIRE(file.has_value());
    CHECK(reader->read(*file, 0, out) == 5u);
    CHECK(as_text(out) == "hello");
    CHECK(check(*reader)->sound());
  }
  CHECK_FALSE(Writer::make(Tree(), std::vector<Device>(65536, Device{1, ""})).has_value());
}

TEST_CASE("More than 65,533 subdirectories and hard links are counted right", "[erofs][writer]") {
  Tree tree;
  auto const f = tree.add(root_id, "f", make_node(Kind::fifo));
  auto const d = tree.add(root_id, "d", make_node(Kind::directory));
  for (int i = 0; i < 65600; ++i) {
    tree.add(d, "d" + std::to_string(i), make_node(Kind::directory));
    tree.link(d, "l" + std::to_string(i), f);
  }

  auto const reader = written(tree);

  CHECK(inode_of(reader, "d").record.links == 65602);
  CHECK(inode_of(reader, "f").record.links == 65601);
  CHECK(reader.superblock().inodes == 65603);
  CHECK(check(reader)->sound());
}

TEST_CASE("Directories of thousands of levels are written and read", "[erofs][writer]") {
  Tree tree;
  auto at = root_id;
  for (int i = 0; i < 4000; ++i) at = tree.add(at, "d", make_node(Kind::directory));

  auto const reader = written(tree);

  CHECK(check(reader)->sound());
  CHECK(check(reader)->inodes == 4001);
}

TEST_CASE("A whiteout and its marks are as overlayfs wants them, or gone", "[erofs][writer]") {
  Tree tree;
  auto const d = tree.add(root_id, "d", make_node(Kind::directory));
  tree[d].directory()->opaque = true;
  tree.add(root_id, "gone", make_node(Kind::whiteout));

  auto const marked = written(tree, {}, {.marks = Marks::trusted});
  CHECK(inode_of(marked, "gone").is_whiteout());
  CHECK(marked.xattrs(marked.root().value()).value() ==
        std::vector<Xattr>{{"trusted.overlay.origin", {}}});
  CHECK(marked.xattrs(inode_of(marked, "d")).value() ==
        std::vector<Xattr>{{"trusted.overlay.opaque", to_bytes("y")}});

  auto const plain = written(tree);
  CHECK(find(plain, "gone").error().code == std::errc::no_such_file_or_directory);
  CHECK(plain.xattrs(plain.root().value())->empty());
  CHECK(plain.xattrs(inode_of(plain, "d"))->empty());
}

TEST_CASE("The uuid follows the content and can be given", "[erofs][writer]") {
  Tree other;
  other.root().uid = 1;
  auto const a = written(Tree()).superblock().uuid;
  auto const b = written(other).superblock().uuid;
  std::array<std::byte, 16> given{};
  given.fill(std::byte{0x42});

  CHECK(a != b);
  CHECK(a != std::array<std::byte, 16>{});
  CHECK(written(other, {}, {.uuid = given}).superblock().uuid == given);
}

TEST_CASE("Writer stops when the sink does", "[erofs][writer][error]") {
  auto const tree = Tree();
  auto const writer = Writer::make(tree, {});

  auto const result = writer->write([](auto) { return false; });

  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().code == Errc::stopping);
}

}  // namespace writer_test
}  // namespace erofs_oci::erofs
