// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/erofs/frame.hpp>  // first: proves that the header stands alone

#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/erofs/file_map.hpp>
#include <erofs_oci/source/memory.hpp>

namespace erofs_oci::erofs {
namespace frame_test {

constexpr std::size_t block = 512;
constexpr std::size_t table =
    9;  // the device table is at byte 9 * 128, right behind the superblock

// An image of four blocks. The flat space has device 1 at its blocks 4 to 6, device 2 at 7 and 8.
Superblock superblock() {
  Superblock s;
  s.blocks_low = 4;
  s.feature_incompat = incompat::device_table;
  s.extra_devices = 2;
  s.device_table_slot = table;
  return s;
}

Bytes image_of(Superblock const& s) {
  Bytes image(4 * block);
  auto const at = [&](std::size_t offset) {
    return std::span(image).subspan(offset).first<DeviceSlot::on_disk_size>();
  };
  s.encode(at(superblock_offset));
  DeviceSlot{.blocks_low = 3, .first_block_low = 4}.encode(at(table * 128));
  DeviceSlot{.blocks_low = 2, .first_block_low = 7}.encode(at((table + 1) * 128));
  return image;
}

Result<Frame<Memory>> open(Bytes image) {
  return Frame<Memory>::open(Memory(std::move(image)), {});
}

Frame<Memory> frame() {
  return open(image_of(superblock())).value();
}

TEST_CASE("Frame knows which ranges lie in the image", "[erofs][frame]") {
  auto const f = frame();

  CHECK(f.contains(0, 2048));
  CHECK(f.contains(2047, 1));
  CHECK(f.contains(2048, 0));
  CHECK_FALSE(f.contains(2047, 2));
  CHECK_FALSE(f.contains(2048, 1));
  CHECK_FALSE(f.contains(2049, 0));
  CHECK_FALSE(f.contains(1, std::numeric_limits<std::uint64_t>::max()));
}

TEST_CASE("A block of the flat space is of the device that has it there", "[erofs][frame]") {
  auto const f = frame();

  CHECK(f.place(0, 3, 0, block).value() == Place{0, 3 * block});
  CHECK(f.place(0, 4, 0, block).value() == Place{1, 0});
  CHECK(f.place(0, 6, 1, block - 1).value() == Place{1, 2 * block + 1});
  CHECK(f.place(0, 7, 0, 2 * block).value() == Place{2, 0});
  CHECK(f.place(2, 1, 0, block).value() == Place{2, block});
}

TEST_CASE("A range that leaves its device has no place", "[erofs][frame][error]") {
  auto const f = frame();
  auto const code = [&](std::uint32_t device, std::uint64_t address, std::uint64_t skip,
                        std::uint64_t length) {
    return f.place(device, address, skip, length).error().code;
  };

  CHECK(f.place(1, 0, 0, 3 * block).has_value());
  CHECK(code(1, 0, 0, 3 * block + 1) == Errc::corrupt);
  CHECK(code(1, 2, 1, block) == Errc::corrupt);
  CHECK(code(0, 3, 0, block + 1) == Errc::corrupt);
  CHECK(code(0, 9, 0, 0) == Errc::corrupt);  // right behind the last device
  CHECK(code(3, 0, 0, 1) == Errc::corrupt);
  CHECK(code(1, std::numeric_limits<std::uint64_t>::max() / block + 1, 0, 1) == Errc::corrupt);
}

TEST_CASE("The superblock and the device table must lie in the image", "[erofs][frame][error]") {
  auto const code = [](auto const& change) {
    auto s = superblock();
    change(s);
    auto const opened = open(image_of(s));
    return opened ? std::error_code() : opened.error().code;
  };

  CHECK_FALSE(code([](Superblock&) {}));
  CHECK(code([](Superblock& s) { s.magic ^= 1; }) == Errc::corrupt);
  CHECK(code([](Superblock& s) { s.block_bits = 8; }) == Errc::unsupported);
  CHECK(code([](Superblock& s) { s.block_bits = 16; }) == Errc::truncated);
  CHECK(code([](Superblock& s) { s.block_bits = 17; }) == Errc::unsupported);
  CHECK(code([](Superblock& s) { s.blocks_low = 5; }) == Errc::truncated);
  CHECK(code([](Superblock& s) { s.dir_block_bits = 1; }) == Errc::unsupported);
  CHECK(code([](Superblock& s) { s.feature_incompat |= 0x100; }) == Errc::unsupported);
  CHECK(code([](Superblock& s) { s.feature_compat = compat::checksum; }) == Errc::corrupt);
  CHECK_FALSE(code([](Superblock& s) { s.device_table_slot = 14; }));  // the last two of 16
  CHECK(code([](Superblock& s) { s.device_table_slot = 15; }) == Errc::corrupt);
  auto short_image = image_of(superblock());
  short_image.pop_back();
  CHECK(open(short_image).error().code == Errc::truncated);
}

// A file whose table of 4-byte entries is at byte 1600.
Inode chunked(std::uint64_t size, unsigned chunk_bits) {
  Inode inode;
  inode.position = 1600 - InodeRecord::compact_size;
  inode.record.format = static_cast<std::uint16_t>(DataLayout::chunks) << 1;
  inode.record.size = size;
  inode.record.start = chunk_bits;
  return inode;
}

TEST_CASE("A chunk table has an entry for each chunk begun", "[erofs][file_map]") {
  auto const f = frame();
  auto const count = [&](std::uint64_t size) { return chunk_table(f, chunked(size, 1))->count; };

  CHECK(count(1) == 1);
  CHECK(count(1024) == 1);
  CHECK(count(1025) == 2);
  CHECK(count(112 * 1024) == 112);  // the last entry ends with the image
  CHECK(chunk_table(f, chunked(112 * 1024 + 1, 1)).error().code == Errc::corrupt);
}

TEST_CASE("A range of a file is joined where it goes on, on one device", "[erofs][file_map]") {
  auto image = image_of(superblock());
  auto const entry = [&](std::size_t i, std::uint32_t address) {
    store_le(address, std::span(image).subspan(1600 + 4 * i).first<4>());
  };
  // Each of the first three ends where the next one begins, but on another device.
  entry(0, 4);  // block 0 of device 1
  entry(1, 8);  // block 1 of device 2
  entry(2, 6);  // block 2 of device 1
  entry(3, 4);  // blocks 0 and 1 of device 1
  entry(4, 5);
  entry(5, null_address);
  auto const f = open(image).value();
  auto const runs = [&](std::uint64_t begin, std::uint64_t end) {
    std::vector<std::pair<std::uint64_t, std::optional<Place>>> found;
    auto const done = for_each_run(f, chunked(6 * block, 0), begin, end, [&](Run const& run) {
      found.emplace_back(run.length, run.place);
      return Result<bool>(true);
    });
    CHECK(done.has_value());
    return found;
  };
  using Runs = decltype(runs(0, 0));

  CHECK(runs(0, 0).empty());
  CHECK(runs(0, block) == Runs{{block, Place{1, 0}}});
  CHECK(runs(0, 6 * block) == Runs{{block, Place{1, 0}},
                                   {block, Place{2, block}},
                                   {block, Place{1, 2 * block}},
                                   {2 * block, Place{1, 0}},
                                   {block, std::nullopt}});
  CHECK(runs(4 * block + 1, 5 * block + 2) ==
        Runs{{block - 1, Place{1, block + 1}}, {2, std::nullopt}});
}

TEST_CASE("The last bytes of a file may lie behind its inode", "[erofs][file_map]") {
  auto const f = frame();
  Inode inode;
  inode.position = 1600 - InodeRecord::compact_size;
  inode.record.format = static_cast<std::uint16_t>(DataLayout::tail) << 1;
  inode.record.size = block + 100;
  inode.record.start = 2;
  std::vector<std::pair<std::uint64_t, std::optional<Place>>> found;

  REQUIRE(for_each_run(f, inode, block - 1, block + 3, [&](Run const& run) {
    found.emplace_back(run.length, run.place);
    return Result<bool>(true);
  }));
  REQUIRE(for_each_run(f, inode, block + 3, block + 100, [&](Run const& run) {
    found.emplace_back(run.length, run.place);
    return Result<bool>(true);
  }));

  CHECK(found ==
        decltype(found){{1, Place{0, 3 * block - 1}}, {3, Place{0, 1600}}, {97, Place{0, 1603}}});
}

}  // namespace frame_test
}  // namespace erofs_oci::erofs
