// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/remote_index.hpp>  // first: proves that the header stands alone

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/image/checkpoints_file.hpp>
#include <erofs_oci/image/found_image.hpp>
#include <erofs_oci/oci/layout_writer.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/fake_registry.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/tar_maker.hpp>

namespace erofs_oci {
namespace remote_index_test {

using testing::FakeRegistry;
using testing::FakeTransport;
using Registry = BasicRegistry<FakeTransport, ManualClock>;
using testing::signing_key;

/// A registry with an image of one layer, and its packed index.
struct World {
  FakeRegistry registry;
  Bytes blob = testing::gzip_member({testing::TarMaker().file("a").end().bytes(), 6});
  Descriptor layer;
  Descriptor image;
  IndexFiles files;

  explicit World(FakeRegistry::Habits habits = {}) : registry(std::move(habits)) {
    layer = registry.add_blob("n/m", as_text(blob));
    layer.media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    Manifest manifest;
    manifest.media_type = media_type::oci_manifest;
    manifest.config = registry.add_blob("n/m", "{}");
    manifest.config.media_type = "application/vnd.oci.image.config.v1+json";
    manifest.layers = {layer};
    image = registry.add_manifest("n/m", "v1", encode(manifest));
    files = index_files(tarindex::build_layer(Memory(blob)).value()).value();
  }

  /// Pushes an artifact.
  Descriptor push(Descriptor const& subject, Bytes const& packed, Descriptor const& of,
                  bool with_signature) const {
    auto const push = testing::fake_pusher(registry);
    auto const at = describe_index(packed, of.digest);
    REQUIRE(push.put_blob(at.digest, packed).has_value());
    registry.add_blob("n/m", index_artifact::empty_config);
    auto const artifact = push.attach(make_index_artifact(subject, {at}));
    REQUIRE(artifact.has_value());
    if (with_signature) {
      REQUIRE(sign_manifest(push, "r.x/n/m", artifact->digest, signing_key()).has_value());
    }
    return *artifact;
  }
  Descriptor push(bool with_signature) const {
    return push(image, pack_index(files).value(), layer, with_signature);
  }

  /// Pushes an artifact with more than the index, signed.
  void push_with(std::vector<Descriptor> const& more) const {
    auto const push = testing::fake_pusher(registry);
    auto const packed = pack_index(files).value();
    auto const at = describe_index(packed, layer.digest);
    REQUIRE(push.put_blob(at.digest, packed).has_value());
    std::vector<Descriptor> parts{at};
    parts.insert(parts.end(), more.begin(), more.end());
    auto const artifact = push.attach(make_index_artifact(image, parts));
    REQUIRE(artifact.has_value());
    REQUIRE(sign_manifest(push, "r.x/n/m", artifact->digest, signing_key()).has_value());
  }

  [[nodiscard]] FoundImage find(IndexTrust const& trust,
                                std::string const& name = "r.x/n/m:v1") const {
    auto const from = *Registry::make(*Reference::parse(name), {}, registry.transport());
    auto found = find_in_registry(from, {"linux", "amd64", ""}, {}, {}, trust);
    REQUIRE(found.has_value());
    return *std::move(found);
  }

  /// What a mount would take; empty: nothing.
  [[nodiscard]] Result<std::optional<RemoteIndex>> look(
      IndexTrust const& trust, std::string const& name = "r.x/n/m:v1") const {
    auto const found = find(trust, name);
    if (!found.index) return std::optional<RemoteIndex>();
    return found.index(found.layers[0].descriptor, std::make_shared<ImageMemory>());
  }
};

IndexTrust const by_key{IndexUse::by_key, {signing_key().public_key()}};
IndexTrust const bound{IndexUse::bound, {signing_key().public_key()}};
IndexTrust const trusted{IndexUse::trusted, {}};

TEST_CASE("A signed index is taken by whoever has the key", "[image][remote_index]") {
  FakeRegistry::Habits habits;
  habits.has_referrers = GENERATE(true, false);
  World const world(habits);
  auto const artifact = world.push(true);

  for (auto const& trust : {by_key, bound}) {
    auto const found = world.look(trust);
    REQUIRE(found.has_value());
    REQUIRE(found->has_value());
    CHECK((**found).files.index == world.files.index);
    CHECK((**found).artifact == artifact.digest);
    CHECK((**found).is_signed);
    CHECK(open_index((**found).files, world.layer).has_value());
  }
}

TEST_CASE("An index that nobody has signed is taken only where that is asked for, and by tag",
          "[image][remote_index]") {
  World const world;
  world.push(false);

  CHECK_FALSE(world.look(by_key)->has_value());
  CHECK_FALSE(world.look(bound)->has_value());
  auto const found = world.look(trusted);
  REQUIRE(found->has_value());
  CHECK_FALSE((**found).is_signed);
  CHECK_FALSE(world.look(trusted, "r.x/n/m@" + world.image.digest.to_string())->has_value());
}

TEST_CASE("Without a key and trust nothing is asked", "[image][remote_index]") {
  World const world;
  world.push(true);
  for (auto const use : {IndexUse::none, IndexUse::by_key, IndexUse::bound}) {
    auto const before = world.registry.transport().requests().size();
    CHECK_FALSE(world.look({use, {}})->has_value());
    CHECK(world.registry.transport().requests().size() == before + 1);  // the image's manifest
  }
}

TEST_CASE("A signed index counts more than one that was pushed before", "[image][remote_index]") {
  World const world;
  auto other = world.files;
  other.links = to_bytes(std::string("not the same"));
  world.push(world.image, pack_index(other).value(), world.layer, false);
  auto const artifact = world.push(true);

  auto const found = world.look({IndexUse::trusted, {signing_key().public_key()}});

  REQUIRE(found->has_value());
  CHECK((**found).artifact == artifact.digest);
}

TEST_CASE("Artifacts that lie are errors, and never indexes", "[image][remote_index][error]") {
  World const world;
  Descriptor other_image;
  other_image.media_type = media_type::oci_manifest;
  other_image.digest = digest_of(as_bytes(std::string("another image")));
  other_image.size = 13;
  Descriptor other_layer;
  other_layer.digest = digest_of(as_bytes(std::string("another layer")));

  SECTION("of another image") {
    world.push(other_image, pack_index(world.files).value(), world.layer, true);
    CHECK_FALSE(world.look(by_key)->has_value());
  }
  SECTION("of another layer") {
    world.push(world.image, pack_index(world.files).value(), other_layer, true);
    CHECK_FALSE(world.look(by_key)->has_value());
  }
  SECTION("of the layer, but with the index of another one") {
    auto const blob = testing::gzip_member({testing::TarMaker().file("b").end().bytes(), 6});
    auto const files = index_files(tarindex::build_layer(Memory(blob)).value()).value();
    world.push(world.image, pack_index(files).value(), world.layer, true);
    auto const found = world.look(by_key);
    REQUIRE(found->has_value());
    CHECK(open_index((**found).files, world.layer).error().code == Errc::mismatch);
  }
  SECTION("not packed") {
    world.push(world.image, world.files.index, world.layer, true);
    CHECK(world.look(by_key).error().code == Errc::corrupt);
  }
}

/// One checkpoint, with a window.
ExtraCheckpoints some_checkpoints() {
  ExtraCheckpoints extra;
  REQUIRE(extra.add({{.in = 100, .out = 5000, .bits = 3}, to_bytes("window")}));
  return extra;
}

TEST_CASE("Checkpoints come with the index of their layer, the start list with the first index",
          "[image][remote_index]") {
  World const world;
  StartList list;
  list.add({world.layer.digest, 0, 100});
  auto const extra = some_checkpoints();
  auto const file = encode_checkpoints(extra);
  auto const list_file = list.encode();
  for (auto const& bytes : {file, list_file}) world.registry.add_blob("n/m", as_text(bytes));
  auto const other = digest_of(as_bytes(std::string("another layer")));
  auto const checkpoints = GENERATE(true, false);
  world.push_with({describe_checkpoints(file, checkpoints ? world.layer.digest : other),
                   describe_start_list(list_file)});

  auto const found = world.find(by_key);
  auto const look = [&] {
    auto index = found.index(world.layer, std::make_shared<ImageMemory>());
    REQUIRE(index.has_value());
    REQUIRE(index->has_value());
    return **std::move(index);
  };
  auto const first = look();
  REQUIRE(first.start_list);
  CHECK(first.start_list() == list);
  CHECK_FALSE(first.no_extra.has_value());
  CHECK(encode_checkpoints(first.extra) == (checkpoints ? file : encode_checkpoints({})));
  CHECK_FALSE(look().start_list);
}

TEST_CASE("An index and the Merkle tree are looked for once", "[image][remote_index]") {
  World const world;
  auto const tree = to_bytes("a tree");
  world.registry.add_blob("n/m", as_text(tree));
  auto const root = digest_of(as_bytes("root"));
  world.push_with({describe_tree(tree, root, world.layer.digest)});
  auto const use = GENERATE(IndexUse::by_key, IndexUse::trusted);
  auto const found = world.find({use, by_key.keys});
  auto const count = [&] { return world.registry.transport().requests().size(); };

  auto const index = found.index(world.layer, std::make_shared<ImageMemory>());
  auto const before = count();
  auto const remote = found.tree();

  REQUIRE(index->has_value());
  REQUIRE(remote.has_value());
  REQUIRE(remote->has_value());
  CHECK(count() == before);
  CHECK((**remote).artifact == (**index).artifact);
  CHECK((**remote).tree.root == root);
  Bytes bytes(tree.size());
  REQUIRE(read_exact((**remote).file, 0, bytes).has_value());
  CHECK(bytes == tree);
}

TEST_CASE("No Merkle tree is taken from an artifact that no key has signed",
          "[image][remote_index]") {
  World const world;
  auto const packed = pack_index(world.files).value();
  auto const tree = to_bytes("a tree");
  for (auto const& bytes : {packed, tree}) world.registry.add_blob("n/m", as_text(bytes));
  world.registry.add_blob("n/m", index_artifact::empty_config);
  auto const artifact =
      testing::fake_pusher(world.registry)
          .attach(make_index_artifact(
              world.image, {describe_index(packed, world.layer.digest),
                            describe_tree(tree, world.layer.digest, world.layer.digest)}));
  REQUIRE(artifact.has_value());

  auto const found = world.find({IndexUse::trusted, by_key.keys});
  CHECK((*found.index(world.layer, std::make_shared<ImageMemory>())).has_value());
  auto const remote = found.tree();
  REQUIRE(remote.has_value());
  CHECK_FALSE(remote->has_value());

  CHECK_FALSE(world.find(trusted).tree);
  CHECK_FALSE(world.find({IndexUse::none, by_key.keys}).tree);
}

TEST_CASE("Checkpoints or a start list that cannot be read cost nothing but themselves",
          "[image][remote_index][error]") {
  World const world;
  auto const good = encode_checkpoints(some_checkpoints());
  auto const bad = to_bytes("no such file");
  world.registry.add_blob("n/m", as_text(good));
  world.registry.add_blob("n/m", as_text(bad));
  auto missing = describe_start_list(good);
  missing.digest = digest_of(as_bytes(std::string("nowhere")));
  auto large = describe_start_list(good);
  large.size = StartList::most_file_bytes + 1;
  for (auto const& parts :
       std::vector<std::vector<Descriptor>>{{describe_checkpoints(bad, world.layer.digest)},
                                            {describe_start_list(bad)},
                                            {describe_start_list(good)},
                                            {missing},
                                            {large}}) {
    World const fresh;
    for (auto const& bytes : {good, bad}) fresh.registry.add_blob("n/m", as_text(bytes));
    fresh.push_with(parts);
    auto const found = fresh.look(by_key);
    REQUIRE(found.has_value());
    REQUIRE(found->has_value());
    CHECK((**found).files.index == world.files.index);
    CHECK((**found).extra.empty());
    auto const list = (**found).start_list;
    CHECK((**found).no_extra.has_value() == !list);
    if (list) CHECK_FALSE(list().has_value());
  }
}

TEST_CASE("The largest checkpoints and start list fit what is read of them",
          "[image][remote_index]") {
  StartList list;
  for (std::size_t i = 0; i < StartList::most_ranges; ++i) {
    auto const layer = std::to_string(i % StartList::most_layers);
    list.add({digest_of(as_bytes(layer)), 4 * i, 4 * i + 1});
  }
  CHECK(list.encode().size() == StartList::most_file_bytes);
  ExtraCheckpoints extra;
  auto const window = Bytes(ExtraCheckpoints::most_window_bytes / ExtraCheckpoints::most);
  for (std::size_t i = 0; i < ExtraCheckpoints::most; ++i) {
    REQUIRE(extra.add({{.in = 100'000 * (i + 1), .out = 200'000 * (i + 1)}, window}));
  }
  CHECK(encode_checkpoints(extra).size() == max_checkpoints_file_size);
}

TEST_CASE("An index in a layout that was named counts unless a signature is wanted",
          "[image][remote_index]") {
  World const world;
  test::Scratch const directory;
  auto const writer = LayoutWriter::open(directory.path()).value();
  auto const packed = pack_index(world.files).value();
  auto const at = describe_index(packed, world.layer.digest);
  REQUIRE(writer.put_blob(at.digest, packed).has_value());
  auto const artifact = writer.attach(make_index_artifact(world.image, {at}));
  REQUIRE(artifact.has_value());
  auto const look = [&](IndexTrust const& trust, Digest const& image) {
    auto const lookup = layout_lookup(Layout::open(directory.path()).value(), image, trust);
    return lookup ? lookup(world.layer, std::make_shared<ImageMemory>()).value() : std::nullopt;
  };
  auto const& image = world.image.digest;
  for (auto const use : {IndexUse::bound, IndexUse::trusted}) {
    auto const found = look({use, {}}, image);
    REQUIRE(found.has_value());
    CHECK_FALSE(found->is_signed);
    CHECK(found->files.index == world.files.index);
  }
  CHECK_FALSE(look(by_key, image).has_value());
  CHECK_FALSE(look({IndexUse::by_key, {}}, image).has_value());
  CHECK_FALSE(look({IndexUse::none, by_key.keys}, image).has_value());
  CHECK_FALSE(look(trusted, digest_of(as_bytes(std::string("another image")))).has_value());

  REQUIRE(sign_manifest(writer, "here", artifact->digest, signing_key()).has_value());
  for (auto const& trust : {by_key, bound}) CHECK(look(trust, image)->is_signed);
}

TEST_CASE("A registry that sends another blob than was signed is noticed",
          "[image][remote_index][error]") {
  FakeRegistry::Habits habits;
  auto const target = std::make_shared<std::string>();
  habits.instead = [target](HttpRequest const& request, std::size_t) {
    std::optional<testing::FakeReply> reply;
    if (!target->empty() && request.url.target == *target) {
      reply = testing::serve(request, Bytes(100'000, std::byte{7}));
    }
    return reply;
  };
  World const world(habits);
  world.push(true);
  auto const at = describe_index(pack_index(world.files).value(), world.layer.digest);
  *target = "/v2/n/m/blobs/" + at.digest.to_string();

  auto const found = world.look(by_key);

  REQUIRE_FALSE(found.has_value());
}

}  // namespace remote_index_test
}  // namespace erofs_oci
