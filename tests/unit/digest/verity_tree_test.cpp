// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/digest/verity_tree.hpp>  // first: proves that the header stands alone

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <tuple>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>
#include <scratch.hpp>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/source/memory.hpp>

namespace erofs_oci {
namespace verity_tree_test {

struct Built {
  Bytes file;
  Digest root;
};

/// Pieces of up to `piece` bytes.
Built build(std::span<std::byte const> data, std::size_t piece) {
  auto const shape = *VerityShape::make(data.size());
  Built built;
  built.file.resize(static_cast<std::size_t>(shape.file_size()), std::byte{0xee});
  VerityTreeBuilder builder(shape, [&](std::uint64_t offset, auto block) -> Result<void> {
    std::ranges::copy(block, built.file.begin() + static_cast<std::ptrdiff_t>(offset));
    return {};
  });
  for (; !data.empty(); data = data.subspan(std::min(piece, data.size()))) {
    REQUIRE(builder.update(data.first(std::min(piece, data.size()))).has_value());
  }
  built.root = *builder.finish();
  return built;
}

Bytes some_data(std::uint64_t blocks, std::uint32_t seed = 1) {
  Bytes data(static_cast<std::size_t>(blocks * VerityShape::data_block));
  for (auto& byte : data) byte = static_cast<std::byte>((seed = seed * 1664525 + 1013904223) >> 24);
  return data;
}

/// The dullest tree: whole levels in memory.
Built oracle(Bytes level) {
  Built built;
  auto size = static_cast<std::size_t>(VerityShape::data_block);
  std::vector<Bytes> levels;
  while (level.size() > size) {
    Bytes above;
    for (std::size_t at = 0; at < level.size(); at += size) {
      auto const digest = digest_of(std::span(level).subspan(at, size));
      above.insert(above.end(), digest.bytes().begin(), digest.bytes().end());
    }
    size = VerityShape::hash_block;
    above.resize((above.size() + size - 1) / size * size);
    levels.push_back(above);
    level = std::move(above);
  }
  built.root = digest_of(level);
  for (auto& one : levels) built.file.insert(built.file.begin(), one.begin(), one.end());
  return built;
}

TEST_CASE("A Merkle tree is that of the specification", "[digest][verity][property]") {
  rc::prop("for all sizes, bytes and cuts", [](std::uint32_t seed) {
    auto const awkward = *rc::gen::element<std::uint64_t>(1, 2, 127, 128, 129, 16384, 16385);
    auto const blocks =
        *rc::gen::oneOf(rc::gen::just(awkward), rc::gen::inRange<std::uint64_t>(1, 2000));
    auto const data = some_data(blocks, seed);
    auto const piece = *rc::gen::element<std::size_t>(1, 511, 512, 513, 4096, 1u << 20);

    auto const built = build(data, blocks > 1000 ? std::max<std::size_t>(piece, 511) : piece);

    auto const wanted = oracle(data);
    RC_ASSERT(built.root == wanted.root);
    RC_ASSERT(std::ranges::equal(std::span(built.file).subspan(4096), wanted.file));
  });
}

TEST_CASE("The root hash of a device of zeros is the known one", "[digest][verity]") {
  // veritysetup format --salt=- --data-block-size=512 of 65536 zeros.
  auto const built = build(Bytes(65536), 4096);

  CHECK(built.root.hex() == "b5a6094fe38e683c02f5314a91efc400fc0ea1cab73ad1a37c47d5f8134df167");
}

TEST_CASE("A Merkle tree is the one that veritysetup makes, byte for byte",
          "[digest][verity][peer]") {
  test::Scratch const directory;
  auto const blocks = GENERATE(std::uint64_t{2}, 128, 129, 16384, 16392);
  auto const data = some_data(blocks);
  auto const built = build(data, 4096);
  auto const path = [&](char const* name) { return directory / name; };
  std::ofstream(path("data"), std::ios::binary)
      .write(reinterpret_cast<char const*>(data.data()), static_cast<std::streamsize>(data.size()));
  auto uuid = hex(std::span(built.file).subspan(16, 16));
  for (auto const at : {20, 16, 12, 8}) uuid.insert(static_cast<std::size_t>(at), "-");

  auto const made =
      std::system(("PATH=$PATH:/usr/sbin veritysetup format --salt=- --data-block-size=512 "
                   "--hash-block-size=4096 --uuid=" +
                   uuid + " " + path("data") + " " + path("tree") + " >" + path("said"))
                      .c_str());

  REQUIRE(made == 0);
  std::ifstream stream(path("tree"), std::ios::binary);
  std::string const theirs{std::istreambuf_iterator<char>(stream), {}};
  CHECK(as_text(built.file) == theirs);
  CHECK(std::system(("grep -q " + built.root.hex() + " " + path("said")).c_str()) == 0);
  std::ofstream(path("ours"), std::ios::binary)
      .write(reinterpret_cast<char const*>(built.file.data()),
             static_cast<std::streamsize>(built.file.size()));
  CHECK(std::system(("PATH=$PATH:/usr/sbin veritysetup verify " + path("data") + " " +
                     path("ours") + " " + built.root.hex() + " >" + path("said"))
                        .c_str()) == 0);
}

TEST_CASE("A file tells its root hash and the size of its data", "[digest][verity]") {
  auto const built = build(some_data(1000), 512);

  auto const tree = read_verity_tree(Memory(built.file));

  REQUIRE(tree.has_value());
  CHECK(tree->root == built.root);
  CHECK(tree->data_size == 512000);
}

TEST_CASE("A file that is no such tree is refused", "[digest][verity][error]") {
  auto const good = build(some_data(1000), 512).file;
  auto const change = [&](std::size_t at, unsigned char value) {
    auto bytes = good;
    bytes[at] = static_cast<std::byte>(value);
    return read_verity_tree(Memory(bytes));
  };

  CHECK(change(0, 'V').error().code == Errc::corrupt);       // magic
  CHECK(change(8, 2).error().code == Errc::unsupported);     // version
  CHECK(change(12, 0).error().code == Errc::unsupported);    // hash type of Chrome OS
  CHECK(change(35, '5').error().code == Errc::unsupported);  // another hash
  CHECK(change(65, 16).error().code == Errc::unsupported);   // data blocks of 4096
  CHECK(change(69, 2).error().code == Errc::unsupported);    // hash blocks of 512
  CHECK(change(72, 0).error().code == Errc::corrupt);        // fewer data blocks: another size
  CHECK(change(79, 0xff).error().code == Errc::corrupt);     // more than there can be
  CHECK(change(80, 4).error().code == Errc::unsupported);    // a salt
  CHECK(change(511, 1).error().code == Errc::unsupported);
  auto longer = good;
  longer.resize(longer.size() + 1);
  CHECK(read_verity_tree(Memory(longer)).error().code == Errc::corrupt);
  CHECK(read_verity_tree(Memory(Bytes(100))).error().code == Errc::corrupt);
  CHECK(read_verity_tree(Memory(build(some_data(1), 512).file)).error().code == Errc::unsupported);
}

TEST_CASE("A superblock survives encoding", "[digest][verity][property]") {
  rc::prop("for all fields", [](std::uint64_t blocks, std::array<std::uint8_t, 16> const& uuid) {
    VeritySuperblock superblock;
    superblock.data_blocks = blocks;
    std::ranges::copy(std::as_bytes(std::span(uuid)), superblock.uuid.begin());

    auto const decoded = VeritySuperblock::decode(superblock.encode());

    RC_ASSERT(decoded.has_value());
    RC_ASSERT(decoded->data_blocks == blocks);
    RC_ASSERT(decoded->uuid == superblock.uuid);
  });
}

TEST_CASE("Sizes that dm-verity cannot check are refused", "[digest][verity][error]") {
  for (std::uint64_t const size : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{513},
                                   VerityShape::most_data + 512, ~std::uint64_t{0}}) {
    CHECK(VerityShape::make(size).error().code == Errc::unsupported);
  }
  CHECK(VerityShape::make(VerityShape::most_data).has_value());
}

TEST_CASE("A builder wants as many bytes as it was told of, and passes errors on",
          "[digest][verity][error]") {
  auto const shape = *VerityShape::make(65536);
  auto const nowhere = [](auto, auto) -> Result<void> { return {}; };
  VerityTreeBuilder few(shape, nowhere);
  REQUIRE(few.update(Bytes(512)).has_value());
  CHECK(few.finish().error().code == Errc::invalid_argument);
  VerityTreeBuilder many(shape, nowhere);
  REQUIRE(many.update(Bytes(65536)).has_value());
  CHECK(many.update(Bytes(1)).error().code == Errc::invalid_argument);
  VerityTreeBuilder full(shape, [](auto, auto) -> Result<void> { return fail_errno(ENOSPC, "x"); });
  CHECK(full.update(Bytes(65536)).error().code == std::errc::no_space_on_device);
}

}  // namespace verity_tree_test
}  // namespace erofs_oci
