// SPDX-License-Identifier: Apache-2.0
#include "merkle_tree.hpp"  // first: proves that the header stands alone

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/source/memory.hpp>

namespace mount_oci {
namespace merkle_tree_test {

using erofs_oci::AnySource;
using erofs_oci::as_bytes;
using erofs_oci::Bytes;
using erofs_oci::digest_of;
using erofs_oci::HostSupport;
using erofs_oci::Memory;
using erofs_oci::MountWay;
using erofs_oci::Presence;
using erofs_oci::VerityTable;

auto const root = digest_of(as_bytes("root"));
auto const other = digest_of(as_bytes("other"));

ImageOptions wants(VerityUse use, std::optional<erofs_oci::Digest> named = std::nullopt) {
  ImageOptions options;
  options.image = "image";
  options.verity = use;
  options.verity_root = named;
  return options;
}

/// Of 8192 bytes, with or without a tree of 4096.
OpenedImage opened(bool with_tree) {
  OpenedImage image{{AnySource(Memory(Bytes(8192, std::byte{1}))), 8192}};
  if (with_tree) image.tree = FoundTree{AnySource(Memory(Bytes(4096, std::byte{2}))), {root, 8192}};
  return image;
}

TEST_CASE("A tree lies behind the data of the image", "[tool][merkle_tree]") {
  Log const log(0);
  auto image = opened(true);

  REQUIRE(append_tree(image, wants(VerityUse::attempt), log).has_value());

  CHECK(image.device.source.size() == 12288);
  CHECK(image.device.zeros_from == 12288);
  Bytes bytes(2);
  REQUIRE(read_exact(image.device.source, 8191, bytes).has_value());
  CHECK(bytes == Bytes{std::byte{1}, std::byte{2}});
}

TEST_CASE("An image without the tree that is wanted is refused if one is required",
          "[tool][merkle_tree][error]") {
  Log const log(0);
  auto const append = [&](bool with_tree, ImageOptions const& options) {
    auto image = opened(with_tree);
    auto const done = append_tree(image, options, log);
    return std::pair(done, image.device.source.size());
  };

  CHECK(append(false, wants(VerityUse::off)).second == 8192);
  CHECK(append(true, wants(VerityUse::off)).second == 8192);
  CHECK(append(false, wants(VerityUse::attempt)).first.has_value());
  auto const [missing, size] = append(false, wants(VerityUse::require));
  CHECK(missing.error().message() ==
        "image: the store has no Merkle tree of this image, which oci.verity=require needs; "
        "`mount-oci index --verity image` makes one");
  CHECK(append(true, wants(VerityUse::require)).second == 12288);
  CHECK(append(true, wants(VerityUse::require, root)).second == 12288);
  CHECK(append(true, wants(VerityUse::require, other)).first.error().code == Errc::mismatch);
}

/// An image in a store, and what a registry says of its tree.
struct Remote {
  erofs_oci::test::Scratch directory;
  erofs_oci::IndexStore store = erofs_oci::IndexStore::open(directory / "store").value();
  Bytes metadata = Bytes(4096, std::byte{7});
  Bytes data = Bytes(65536, std::byte{1});
  erofs_oci::MergedImage image{
      {AnySource(Memory(data)), data.size()}, AnySource(Memory(metadata)), 4096, "key"};
  erofs_oci::ArtifactTree told{};
  Bytes file{};
  Log log{-1};

  Remote() {
    REQUIRE(store.put_image("key", metadata).has_value());
    told.root = make_tree(image, store, {})->root;
    auto const kept = *store.find_verity("key").value();
    file.resize(static_cast<std::size_t>(kept.size()));
    REQUIRE(read_exact(kept, 0, file).has_value());
    std::filesystem::remove(directory / "store/images/key/verity");
    told.at.digest = digest_of(file);
    told.metadata = digest_of(metadata);
  }

  Result<void> fetch() const {
    auto const lookup = [this]() -> Result<std::optional<erofs_oci::RemoteTree>> {
      return erofs_oci::RemoteTree{told, AnySource(Memory(file)), {}};
    };
    return fetch_tree(lookup, image, store, log);
  }
  [[nodiscard]] bool is_there() const { return find_tree(image, store, log).has_value(); }
};

TEST_CASE("A signed tree of the image is taken from the registry", "[tool][merkle_tree]") {
  Remote remote;
  REQUIRE_FALSE(remote.is_there());

  REQUIRE(remote.fetch().has_value());

  CHECK(find_tree(remote.image, remote.store, remote.log)->tree.root == remote.told.root);
  auto const pushed = tree_to_push(remote.image, remote.store, {remote.told.root, 65536});
  REQUIRE(pushed.has_value());
  CHECK(digest_of(pushed->file) == remote.told.at.digest);
  CHECK(pushed->metadata == remote.told.metadata);
}

TEST_CASE("No other tree is taken from a registry", "[tool][merkle_tree][error]") {
  Remote remote;
  SECTION("there is none") {
    CHECK(fetch_tree([] { return Result<std::optional<erofs_oci::RemoteTree>>(); }, remote.image,
                     remote.store, remote.log)
              .has_value());
  }
  SECTION("one of other metadata") {
    remote.told.metadata = other;
    CHECK(remote.fetch().has_value());
  }
  SECTION("one of a device of another size") {
    remote.file.resize(4096);
    CHECK(remote.fetch().has_value());
  }
  SECTION("other bytes than its digest says") {
    remote.told.at.digest = other;
    CHECK(remote.fetch().error().code == Errc::digest_mismatch);
  }
  SECTION("another root hash than the artifact says") {
    remote.told.root = other;
    CHECK(remote.fetch().error().code == Errc::mismatch);
  }
  CHECK_FALSE(remote.is_there());
}

TEST_CASE("No worker chooses another tree than the user", "[tool][merkle_tree][error]") {
  VerityTable const table{root, 8192, true};
  auto const none = std::optional<VerityTable>();

  CHECK(check_verity(none, wants(VerityUse::off)).has_value());
  CHECK(check_verity(none, wants(VerityUse::attempt)).has_value());
  CHECK(check_verity(table, wants(VerityUse::require)).has_value());
  CHECK(check_verity(table, wants(VerityUse::require, root)).has_value());
  CHECK(check_verity(table, wants(VerityUse::require, other)).error().code == Errc::mismatch);
  CHECK(check_verity(none, wants(VerityUse::require)).error().code == Errc::mismatch);
  CHECK(check_verity(none, wants(VerityUse::require, root)).error().code == Errc::mismatch);
}

TEST_CASE("What a record says of a tree is what the kernel is told", "[tool][merkle_tree]") {
  erofs_oci::RecordImage image;
  CHECK_FALSE(verity_table(image, VerityUse::require).has_value());
  CHECK(root_text(image).empty());
  image.verity = root;
  image.verity_data = 8192;
  CHECK(verity_table(image, VerityUse::require) == VerityTable{root, 8192, true});
  CHECK(verity_table(image, VerityUse::attempt) == VerityTable{root, 8192, false});
  CHECK(root_text(image) == root.hex());
}

TEST_CASE("A table survives the way to another process", "[tool][merkle_tree]") {
  for (auto const required : {true, false}) {
    VerityTable const table{root, 40960, required};
    CHECK(parse_table(table_text(table)).value() == table);
  }
  CHECK(table_text({}).empty());
  CHECK_FALSE(parse_table("").value().has_value());
}

TEST_CASE("A text that is no table is refused", "[tool][merkle_tree][error]") {
  auto const good = table_text(VerityTable{root, 8192, true});
  for (auto const& text :
       {std::string("8192"), "0" + good.substr(4), "8193" + good.substr(4),
        "-8192" + good.substr(4), "8192 2" + good.substr(6), good.substr(0, good.size() - 1),
        good + "0", " " + good,
        "8192 1 " + digest_of({}, erofs_oci::DigestAlgorithm::sha512).to_string()}) {
    INFO(text);
    CHECK_FALSE(parse_table(text).has_value());
  }
}

TEST_CASE("Why the kernel cannot check is said", "[tool][merkle_tree]") {
  HostSupport host;
  host.verity = Presence::present;
  host.loop = Presence::present;
  auto const built_without = !erofs_oci::verity_problem().empty();
  auto const why = [&](MountWay way) { return verity_obstacle(way, host); };

  CHECK(why(MountWay::netlink).empty() != built_without);
  CHECK(why(MountWay::fuse_file).empty() != built_without);
  CHECK_FALSE(why(MountWay::ioctl).empty());
  CHECK_FALSE(why(MountWay::fuse_tree).empty());
  host.loop = Presence::absent;
  CHECK(why(MountWay::netlink).empty() != built_without);
  CHECK_FALSE(why(MountWay::fuse_file).empty());
  host.verity = Presence::absent;
  CHECK_FALSE(why(MountWay::netlink).empty());
}

}  // namespace merkle_tree_test
}  // namespace mount_oci
