// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/erofs/format.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/erofs/directory.hpp>
#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/xattr.hpp>
#include <erofs_oci/testing/generators.hpp>

#include "support.hpp"

namespace erofs_oci::erofs {
namespace format_test {

/// `N` bytes.
template <std::size_t N>
std::array<std::byte, N> any_array() {
  auto const drawn =
      *rc::gen::container<std::vector<std::uint8_t>>(N, rc::gen::arbitrary<std::uint8_t>());
  std::array<std::byte, N> raw{};
  std::ranges::transform(drawn, raw.begin(), [](std::uint8_t b) { return std::byte{b}; });
  return raw;
}

TEST_CASE("The checksum is CRC-32C without a final inversion", "[erofs][format]") {
  std::array const magic_bytes{std::byte{0xE2}, std::byte{0xE1}, std::byte{0xF5}, std::byte{0xE0},
                               std::byte{0},    std::byte{0},    std::byte{0},    std::byte{0}};
  CHECK(crc32c(magic_bytes) == 0x5045B54A);
  CHECK((crc32c(as_bytes("123456789")) ^ 0xFFFFFFFF) == 0xE3069283);

  auto const image = test::load(test::data_dir + "out/basic.erofs");
  auto block = to_bytes(std::span(image).subspan(superblock_offset, block_size));
  auto const superblock = Superblock::decode(std::span<std::byte const>(block).first<128>());
  std::ranges::fill(std::span(block).subspan(4, 4), std::byte{0});
  CHECK(superblock.checksum == 0xD616F6EE);
  CHECK(crc32c(block) == 0xD616F6EE);
  CHECK(superblock.checksum_length() == 512);
}

TEST_CASE("The checksum covers a block, or what byte 1024 leaves of a larger one",
          "[erofs][format]") {
  Superblock s;
  s.block_bits = 10;
  CHECK(s.checksum_length() == 1024);
  s.block_bits = 12;
  CHECK(s.checksum_length() == 3072);
}

TEST_CASE("A superblock is where the specification's example says", "[erofs][format]") {
  auto const image = test::load(test::data_dir + "out/oneblk.erofs");
  auto const s = Superblock::decode(std::span(image).subspan<superblock_offset, 128>());

  CHECK(s.magic == magic);
  CHECK(s.feature_compat == (compat::checksum | compat::mtime));
  CHECK(s.block_bits == 9);
  CHECK(s.root() == 0x28);
  CHECK(s.inodes == 2);
  CHECK(s.epoch == 1'700'000'000);
  CHECK(s.blocks() == 3);
  CHECK(s.feature_incompat == incompat::device_table);
  CHECK(s.extra_devices == 1);
  CHECK(s.device_table_slot == 9);
  auto const slot = DeviceSlot::decode(std::span(image).subspan<0x480, 128>());
  CHECK(slot.blocks_low == 3);
  CHECK(slot.first_block_low == 3);
  auto const a = InodeRecord::decode(std::span(image).subspan<0x560, 64>());
  CHECK(a.layout_bits() == 4);
  CHECK(a.mode == (mode::regular | 0644));
  CHECK(a.size == 2);
  CHECK(ChunkFormat{static_cast<std::uint16_t>(a.start)}.indexed());
  auto const chunk = ChunkIndex::decode(std::span(image).subspan<0x580, 8>(), ChunkFormat{0x20});
  CHECK(chunk.device == 1);
  CHECK(chunk.address == 1);
}

TEST_CASE("A superblock with 48-bit addresses keeps a wide root and block count",
          "[erofs][format]") {
  Superblock s;
  s.root_nid = 5;
  s.blocks_low = 7;
  s.root_nid_wide = 1ull << 40;
  CHECK(s.root() == 5);
  CHECK(s.blocks() == 7);

  s.feature_incompat = incompat::wide_addresses;

  CHECK(s.root() == 1ull << 40);
  CHECK(s.blocks() == (5ull << 32 | 7));
}

TEST_CASE("Structures decode what they encode", "[erofs][format][property]") {
  rc::prop("superblocks", [] {
    auto const raw = any_array<Superblock::on_disk_size>();
    std::array<std::byte, Superblock::on_disk_size> once{}, twice{};
    Superblock::decode(raw).encode(once);
    Superblock::decode(once).encode(twice);
    RC_ASSERT(once == twice);
    for (std::size_t i = 0; i < 105; ++i) RC_ASSERT(once[i] == raw[i]);
  });
  rc::prop("device slots", [] {
    auto const raw = any_array<DeviceSlot::on_disk_size>();
    std::array<std::byte, DeviceSlot::on_disk_size> once{};
    DeviceSlot::decode(raw).encode(once);
    RC_ASSERT(std::equal(raw.begin(), raw.begin() + 76, once.begin()));
  });
  rc::prop("directory entries", [] {
    auto raw = any_array<Dirent::on_disk_size>();
    std::array<std::byte, Dirent::on_disk_size> once{};
    Dirent::decode(raw).encode(once);
    raw[11] = std::byte{0};
    RC_ASSERT(once == raw);
  });
  rc::prop("inodes of both forms", [] {
    auto raw = any_array<InodeRecord::extended_size>();
    raw[0] &= ~std::byte{0x10};
    auto const record = InodeRecord::decode(raw);
    std::array<std::byte, InodeRecord::extended_size> once{};
    record.encode(std::span(once).first(record.record_size()));
    auto const again = InodeRecord::decode(once);
    RC_ASSERT(again.format == record.format);
    RC_ASSERT(again.mode == record.mode);
    RC_ASSERT(again.links == record.links);
    RC_ASSERT(again.size == record.size);
    RC_ASSERT(again.start == record.start);
    RC_ASSERT(again.uid == record.uid);
    RC_ASSERT(again.gid == record.gid);
    RC_ASSERT(again.seconds == record.seconds);
    RC_ASSERT(again.nanoseconds == record.nanoseconds);
    RC_ASSERT(again.xattr_count == record.xattr_count);
  });
}

TEST_CASE("Chunk indexes of every form know their holes", "[erofs][format]") {
  std::array<std::byte, 8> raw{};
  raw.fill(std::byte{0xff});
  CHECK(ChunkIndex::decode(std::span(raw).first(4), ChunkFormat{0}).hole);
  CHECK(ChunkIndex::decode(raw, ChunkFormat{0x20}).hole);
  CHECK(ChunkIndex::decode(raw, ChunkFormat{0x60}).hole);

  raw[0] = std::byte{0};  // a high bit of the address
  CHECK(ChunkIndex::decode(raw, ChunkFormat{0x20}).hole);
  CHECK_FALSE(ChunkIndex::decode(raw, ChunkFormat{0x60}).hole);
  CHECK(ChunkIndex::decode(raw, ChunkFormat{0x60}).address == 0xFF00FFFFFFFF);
}

TEST_CASE("Names split into a prefix and a rest, or cannot be stored", "[erofs][xattr]") {
  CHECK(split_name("user.a")->prefix == 1);
  CHECK(split_name("user.a")->rest == "a");
  CHECK(split_name("trusted.overlay.opaque")->prefix == 4);
  CHECK(split_name("security.capability")->prefix == 6);
  CHECK(split_name("system.posix_acl_access")->prefix == 2);
  CHECK(split_name("system.posix_acl_access")->rest.empty());
  CHECK(split_name("system.posix_acl_default")->prefix == 3);
  for (auto const* const name : {"", "user", "user.", "trusted.", "system.x",
                                 "system.posix_acl_accessx", "btrfs.x", "User.a"}) {
    INFO(name);
    CHECK_FALSE(split_name(name).has_value());
  }
}

TEST_CASE("An xattr area is visited to its end or refused", "[erofs][xattr][property]") {
  rc::prop("for all bytes: no entry leaves the area", [] {
    auto const raw = *testing::any_bytes();
    std::size_t visited = 0;
    auto const ok = for_each_xattr(
        raw, [](std::uint32_t) { return true; },
        [&](XattrView const& view) {
          visited += view.rest.size() + view.value.size() + 4;
          return true;
        });
    RC_ASSERT(visited <= raw.size());
    if (!ok) RC_ASSERT(ok.error().code == Errc::corrupt);
  });
}

/// A directory block as the format wants it.
Bytes block_of(std::vector<std::string> const& names) {
  Bytes bytes;
  auto at = names.size() * Dirent::on_disk_size;
  for (std::size_t i = 0; i < names.size(); ++i) {
    std::array<std::byte, Dirent::on_disk_size> raw{};
    Dirent{i + 40, static_cast<std::uint16_t>(at), FileType::regular}.encode(raw);
    bytes.insert(bytes.end(), raw.begin(), raw.end());
    at += names[i].size();
  }
  for (auto const& name : names) {
    auto const text = as_bytes(name);
    bytes.insert(bytes.end(), text.begin(), text.end());
  }
  return bytes;
}

TEST_CASE("An xattr area has a header of 12 bytes and units of 4", "[erofs][inode]") {
  InodeRecord record;
  CHECK(record.xattr_size() == 0);
  record.xattr_count = 1;
  CHECK(record.xattr_size() == 12);
  record.xattr_count = 3;
  CHECK(record.xattr_size() == 20);
}

TEST_CASE("A hole has no device on disk", "[erofs][inode]") {
  std::array<std::byte, ChunkIndex::on_disk_size> raw{};
  ChunkIndex{.address = 5, .device = 3, .hole = true}.encode(raw);

  auto const read = ChunkIndex::decode(raw, {ChunkFormat::indexed_bit});

  CHECK(read.hole);
  CHECK(read.device == 0);
}

TEST_CASE("A directory block gives back its names", "[erofs][directory]") {
  auto bytes = block_of({"-x", ".", "..", "a", "ab", "b\xff"});
  bytes.resize(200);  // padded

  auto const block = DirBlock::parse(bytes);

  REQUIRE(block.has_value());
  REQUIRE(block->count() == 6);
  CHECK((*block)[0].name == "-x");
  CHECK((*block)[5].name == "b\xff");
  CHECK((*block)[5].nid == 45);
  CHECK((*block)[1].is_dot());
  CHECK(block->lower_bound("aa") == 4);
  CHECK(block->lower_bound("c") == 6);
  CHECK(block->is_clean());
  bytes.back() = std::byte{1};
  CHECK_FALSE(DirBlock::parse(bytes)->is_clean());
}

TEST_CASE("DirBlock refuses names that are none", "[erofs][directory][error]") {
  CHECK_FALSE(DirBlock::parse({}).has_value());
  CHECK_FALSE(DirBlock::parse(Bytes(11)).has_value());
  CHECK_FALSE(DirBlock::parse(Bytes(512)).has_value());
  CHECK_FALSE(DirBlock::parse(block_of({"a", "", "b"})).has_value());
  CHECK_FALSE(DirBlock::parse(block_of({"a/b"})).has_value());
  CHECK_FALSE(DirBlock::parse(block_of({std::string("a\0b", 3), "c"})).has_value());
  CHECK_FALSE(DirBlock::parse(block_of({std::string(256, 'x')})).has_value());
  CHECK(DirBlock::parse(block_of({std::string(255, 'x')})).has_value());
}

TEST_CASE("DirBlock reads any bytes without leaving them", "[erofs][directory][property]") {
  rc::prop("for all bytes", [] {
    auto raw = *testing::any_bytes();
    if (raw.size() > 9 && *rc::gen::arbitrary<bool>())
      raw[8] = std::byte{12}, raw[9] = std::byte{0};
    auto const block = DirBlock::parse(raw);
    if (!block) return;
    for (std::size_t i = 0; i < block->count(); ++i) {
      auto const name = (*block)[i].name;
      RC_ASSERT(!name.empty() && name.size() <= 255);
      RC_ASSERT(as_bytes(name).data() >= raw.data());
      RC_ASSERT(as_bytes(name).data() + name.size() <= raw.data() + raw.size());
    }
    static_cast<void>(block->is_clean());  // stays inside, too
  });
}

}  // namespace format_test
}  // namespace erofs_oci::erofs
