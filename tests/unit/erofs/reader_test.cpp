// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/erofs/reader.hpp>  // first: proves that the header stands alone

#include <chrono>

#include <catch.hpp>

#include <erofs_oci/erofs/fsck.hpp>
#include <erofs_oci/erofs/load.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/source/memory.hpp>

#include "data_path.hpp"
#include "support.hpp"

namespace erofs_oci::erofs {
namespace reader_test {

using namespace std::chrono_literals;
using test::data_dir;

void compare(test::Lines const& found, test::Lines const& expected) {
  for (auto const& [path, line] : expected) {
    INFO(path);
    REQUIRE(found.contains(path));
    CHECK(found.at(path) == line);
  }
  for (auto const& [path, line] : found) {
    INFO(path << " is there, but should not be");
    CHECK(expected.contains(path));
  }
}

std::uint64_t slot_bytes(Bytes const& image, std::size_t i) {
  return Reader<Memory>::open(Memory(image))->frame().slot_blocks(i) * block_size;
}

TEST_CASE("Reader shows what the kernel shows of the fixtures", "[erofs][reader]") {
  auto const cases = test::load_json(data_dir + "cases.json");

  for (auto const& one : cases) {
    if (!one.contains("image")) continue;
    auto const name = one.at("name").get<std::string>();
    INFO(name);
    auto const image = test::load(data_dir + one.at("image").get<std::string>());
    auto const expected = test::manifest(data_dir + one.at("manifest").get<std::string>());
    std::vector<testing::Sparse> tars;
    if (one.contains("devices")) {
      for (auto const& device : one.at("devices")) {
        tars.push_back(test::tar_of(data_dir + device.get<std::string>()));
      }
    } else if (one.contains("input")) {
      auto const input = one.at("input").get<std::string>();
      auto const stored_elsewhere = name.starts_with("gz-") && name != "gz-hdr";
      tars.push_back(test::tar_of(stored_elsewhere   ? test_data("/oci") + input.substr(2)
                                  : name == "gz-hdr" ? data_dir + "in/basic.tar"
                                                     : data_dir + input));
    }
    std::vector<AnySource> devices;
    std::vector<std::pair<std::uint64_t, testing::Sparse>> parts;
    for (auto const& tar : tars) {
      devices.emplace_back(tar);
      parts.emplace_back(slot_bytes(image, parts.size()), tar);
    }

    auto const split = Reader<Memory>::open(Memory(image), std::move(devices));
    auto const flat = Reader<test::Flat>::open(test::Flat(image, std::move(parts)));

    REQUIRE(split.has_value());
    REQUIRE(flat.has_value());
    compare(test::lines_of(*split, expected), expected);
    compare(test::lines_of(*flat, expected), expected);
    CHECK(check(*split, {.data = expected.size() > 5})->sound());  // not the files of terabytes
  }
}

TEST_CASE("Reader reads every free choice of the format", "[erofs][reader]") {
  auto const rows = test::load_json(data_dir + "variants/expected.json").at("rows");
  auto const expected = test::manifest(data_dir + "variants/manifest.jsonl");
  auto const tar = test::tar_of(data_dir + "variants/probe.tar");
  auto const padded = (tar.size() + 511) / 512 * 512;

  for (auto const& row : rows) {
    INFO(row.at(1).get<std::string>());
    auto const image = test::load(data_dir + "variants/" + row.at(0).get<std::string>() + ".erofs");
    auto const flat = Reader<test::Flat>::open(test::Flat(image, {{padded, tar}}));
    REQUIRE(flat.has_value());
    compare(test::lines_of(*flat, expected), expected);

    std::vector<AnySource> devices;
    devices.emplace_back(tar);
    auto const split = Reader<Memory>::open(Memory(image), std::move(devices));
    auto const refused = row.at(4).get<std::string>().starts_with("refused");
    REQUIRE(split.has_value() != refused);
    if (!refused) compare(test::lines_of(*split, expected), expected);
  }
}

/// What our reader makes of each damaged image: why it refuses to open it, or what check() says
/// first.
std::map<std::string, std::pair<bool, std::string>> const verdicts{
    {"ok", {true, ""}},
    {"magic", {false, "no EROFS magic"}},
    {"crc", {false, "wrong checksum"}},
    {"blkbits8", {false, "blocks of 2^8 bytes"}},
    {"blkbits13", {false, "checksummed bytes"}},
    {"blkbits12", {false, "checksummed bytes"}},
    {"incompat", {false, "incompatible features 512"}},
    {"dirblkbits", {false, "directory blocks of several blocks"}},
    {"extslots", {false, "255 extension slots"}},
    {"root_is_file", {false, "is no directory"}},
    {"root_oob", {false, "inode 65520: leaves the image"}},
    {"devs2", {false, "1 devices given, the image has 2"}},
    {"devs65535", {false, "1 devices given, the image has 65535"}},
    {"slotoff_oob", {false, "1 slots at offset 4194176 leave the image"}},
    {"nameoff0", {true, "first name at offset 0"}},
    {"nameoff_big", {true, "first name at offset 8176"}},
    {"nameoff_odd", {true, "first name at offset 73"}},
    {"nameoff_back", {true, "entry 1: its name is empty or begins after the next one"}},
    {"nameoff_last_oob", {true, "entry 4: its name leaves the block"}},
    {"dirent_nid_oob", {true, "inode 268435455: leaves the image"}},
    {"dirent_nid_meta", {true, "inode 9223372036854775809: leaves the image"}},
    {"unsorted", {true, "names out of order: 'b' before 'a'"}},
    {"dupname", {true, "names out of order: 'a' before 'a'"}},
    {"slash", {true, "entry 2: its name holds NUL or /"}},
    {"nulname", {true, "entry 2: its name holds NUL or /"}},
    {"ftype", {true, "entry 'a' has an unknown file type"}},
    {"ftype_mismatch", {true, "its entry says file type 2, its mode 33188"}},
    {"dotdot_wrong", {true, "'..' names inode 50"}},
    {"loop", {true, "this directory has two parents, or is its own"}},
    {"selfloop", {true, "this directory has two parents, or is its own"}},
    {"ifmt_reserved", {true, "inode format 41"}},
    {"layout5", {true, "inode format 11"}},
    {"layout1", {true, "compressed data"}},
    {"layout0", {true, "block 32 and on: leaves device 0"}},
    {"negsize", {true, "size is negative"}},
    {"hugesize", {true, "a table of 9007199254740992 chunks leaves the image"}},
    {"mode0", {true, "mode 420 has no file type"}},
    {"chunkfmt", {true, "chunk format 160"}},
    {"chunkbits31", {true, ""}},
    {"dev2", {true, "device id 2, there are 1"}},
    {"dev3", {true, "device id 3, there are 1"}},
    {"blk_oob", {true, "block 16777215 and on: leaves device 1"}},
    {"hi_no48", {true, ""}},
    {"nlink0", {true, "link count 0, there are 1"}},
    {"icount1", {true, "xattr area without entries"}},
    {"icount_big", {true, "xattr area leaves the image"}},
    {"inline_cross", {true, "inline data leaves its block"}},
    {"lnk0", {true, "link without a target"}},
    {"dirsize_big", {false, "content at block 4294967295 leaves the image"}},
    {"dirsize0", {true, "'.' or '..' is missing"}},
    {"dir_as_chunk", {true, "a directory or link of this layout"}},
    {"trunc1100", {false, "image too short"}},
    {"trunc1152", {false, "checksummed bytes"}},
    {"trunc_meta", {false, "says 4 blocks, there are 1610 bytes"}},
};

std::vector<AnySource> bad_device() {
  std::vector<AnySource> devices;
  devices.emplace_back(Memory(test::load(data_dir + "bad/bad.tar")));
  return devices;
}

TEST_CASE("Reader and check name what is wrong with damaged images", "[erofs][reader][error]") {
  auto const listed = test::load_json(data_dir + "bad/expected.json");
  REQUIRE(listed.size() == verdicts.size());

  for (auto const& one : listed) {
    auto const file = one.at("image").get<std::string>();
    INFO(file << ": " << one.at("what").get<std::string>());
    auto const& [opens, text] = verdicts.at(file.substr(0, file.find('.')));
    auto const start = std::chrono::steady_clock::now();
    auto const reader =
        Reader<Memory>::open(Memory(test::load(data_dir + "bad/" + file)), bad_device());

    REQUIRE(reader.has_value() == opens);
    if (!opens) {
      CHECK_THAT(reader.error().message(), Catch::Contains(text));
      continue;
    }
    auto const findings = check(*reader, {.data = true});
    REQUIRE(findings.has_value());
    CHECK(findings->sound() == text.empty());
    if (!text.empty()) {
      REQUIRE_FALSE(findings->list.empty());
      CHECK_THAT(findings->list.front().text, Catch::Contains(text));
      CHECK(findings->list.front().nid.has_value());
    }
    CHECK(std::chrono::steady_clock::now() - start < 2s);
  }
}

/// Everything that can be asked of an image; yields a sum, so that nothing is optimised away.
std::uint64_t use_all(Bytes image, std::vector<AnySource> devices) {
  auto const reader = Reader<Memory>::open(Memory(std::move(image)), std::move(devices));
  if (!reader) return 0;
  std::uint64_t sum = reader->statfs().blocks;
  Bytes buffer(700);
  auto const walked = walk(*reader, [&](Visit const& at) {
    if (at.inode == nullptr) return Step::enter;
    if (auto const list = reader->xattrs(*at.inode)) sum += list->size();
    if (at.inode->is_symlink()) sum += reader->read_link(*at.inode).value_or("").size();
    if (at.inode->is_regular()) {
      for (std::uint64_t const offset :
           {std::uint64_t{0}, std::uint64_t{500}, at.inode->size() - 1}) {
        if (auto const n = reader->read(*at.inode, offset, buffer)) sum += *n;
      }
    }
    sum += find(*reader, at.path, Follow::all).has_value() ? 1u : 0u;
    return Step::enter;
  });
  sum += walked ? 1u : 0u;
  if (auto const findings = check(*reader, {.data = true})) sum += findings->count;
  if (auto const tree = load_tree(*reader, Marks::trusted)) sum += tree->size();
  return sum;
}

TEST_CASE("Reader survives truncation at every byte", "[erofs][reader][error]") {
  for (auto const* const name : {"bad/ok.erofs", "out/oneblk.erofs", "out/shared-xattr.erofs"}) {
    auto const whole = test::load(data_dir + name);

    for (std::size_t size = 0; size < whole.size(); ++size) {
      auto const image = Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      auto const reader = Reader<Memory>::open(Memory(image));
      REQUIRE_FALSE(reader.has_value());  // the superblock says how long it should be
    }
  }
}

/// The same image without a checksum, and with a block count of one, so that damage gets past
/// open().
Bytes unguarded(Bytes image) {
  image[superblock_offset + 8] &= ~std::byte{1};
  store_le(std::uint32_t{1}, std::span(image).subspan(superblock_offset + 36).first<4>());
  return image;
}

TEST_CASE("Reader survives truncation of an image that hides its length",
          "[erofs][reader][error]") {
  for (auto const* const name : {"bad/ok.erofs", "out/shared-xattr.erofs"}) {
    auto const whole = unguarded(test::load(data_dir + name));
    auto const all = use_all(whole, {});
    CHECK(all > 0);

    for (std::size_t size = 0; size < whole.size(); ++size) {
      use_all(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)), {});
    }
  }
}

TEST_CASE("Reader survives every flip of a bit", "[erofs][reader][error]") {
  for (auto const* const name : {"bad/ok.erofs", "out/shared-xattr.erofs"}) {
    auto const whole = unguarded(test::load(data_dir + name));
    auto const start = std::chrono::steady_clock::now();

    for (std::size_t i = superblock_offset; i < whole.size(); ++i) {
      for (unsigned bit = 0; bit < 8; ++bit) {
        auto image = whole;
        image[i] ^= std::byte{1} << bit;
        use_all(std::move(image),
                std::string_view(name) == "bad/ok.erofs" ? bad_device() : std::vector<AnySource>{});
      }
    }

    CHECK(std::chrono::steady_clock::now() - start < 100s);
  }
}

TEST_CASE("Reader survives every byte set to all ones", "[erofs][reader][error]") {
  auto const whole = unguarded(test::load(data_dir + "bad/ok.erofs"));

  for (std::size_t i = superblock_offset; i < whole.size(); ++i) {
    for (std::size_t width : {1u, 2u, 4u, 8u}) {
      auto image = whole;
      for (std::size_t k = i; k < std::min(i + width, image.size()); ++k)
        image[k] = std::byte{0xff};
      use_all(std::move(image), bad_device());
    }
  }
}

TEST_CASE("lookup finds what readdir lists and nothing else", "[erofs][reader]") {
  auto const reader = Reader<Memory>::open(Memory(test::load(data_dir + "out/bigdir.erofs.gz")));
  REQUIRE(reader.has_value());
  std::optional<Inode> big;
  REQUIRE(walk(*reader, [&](Visit const& at) {
    if (at.inode->is_directory() && at.inode->size() > 100000) big = *at.inode;
    return big ? Step::stop : Step::enter;
  }));
  REQUIRE(big.has_value());
  std::map<std::string, std::uint64_t> names;
  REQUIRE(reader->readdir(*big, [&](DirEntry const& entry) {
    names.emplace(entry.name, entry.nid);
    return true;
  }));
  REQUIRE(names.size() == 10002);

  for (auto const& [name, nid] : names) {
    auto const found = reader->lookup(*big, name);
    REQUIRE(found.has_value());
    REQUIRE(found->has_value());
    REQUIRE((*found)->first == nid);
    REQUIRE_FALSE(reader->lookup(*big, name + "x")->has_value());
    REQUIRE_FALSE(reader->lookup(*big, name.substr(0, name.size() - 1) + "\x01")->has_value());
  }
  CHECK_FALSE(reader->lookup(*big, std::string("\0", 1))->has_value());
  CHECK_FALSE(reader->lookup(*big, "\xff")->has_value());
}

TEST_CASE("An index without its data can be listed but not read", "[erofs][reader][error]") {
  auto const reader = Reader<Memory>::open(Memory(test::load(data_dir + "out/basic.erofs")));
  REQUIRE(reader.has_value());
  std::size_t files = 0;
  Bytes buffer(1);

  REQUIRE(walk(*reader, [&](Visit const& at) {
    if (!at.inode->is_regular() || at.inode->size() == 0) return Step::enter;
    ++files;
    auto const n = reader->read(*at.inode, 0, buffer);
    CHECK_FALSE(n.has_value());
    if (!n) CHECK(n.error().code == Errc::truncated);
    return Step::enter;
  }));

  CHECK(files > 5);
}

TEST_CASE("Reader reads any part of a file", "[erofs][reader]") {
  std::vector<AnySource> devices;
  devices.emplace_back(test::tar_of(data_dir + "in/basic.tar"));
  auto const reader =
      Reader<Memory>::open(Memory(test::load(data_dir + "out/basic.erofs")), std::move(devices));
  REQUIRE(reader.has_value());
  std::optional<Inode> file;
  REQUIRE(walk(*reader, [&](Visit const& at) {
    if (at.inode->size() == 100003) file = *at.inode;
    return Step::enter;
  }));
  REQUIRE(file.has_value());
  Bytes all(100003);
  REQUIRE(reader->read(*file, 0, all) == all.size());

  for (std::size_t const offset : {0u, 1u, 511u, 512u, 99999u, 100002u}) {
    Bytes part(1025);
    auto const n = reader->read(*file, offset, part);
    REQUIRE(n == std::min<std::size_t>(1025, all.size() - offset));
    CHECK(std::equal(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(*n),
                     all.begin() + static_cast<std::ptrdiff_t>(offset)));
  }
  Bytes part(10);
  CHECK(reader->read(*file, 100003, part) == 0u);
  CHECK(reader->read(*file, ~std::uint64_t{0}, part) == 0u);
}

TEST_CASE("Reader refuses the wrong question", "[erofs][reader][error]") {
  auto const reader = Reader<Memory>::open(Memory(test::load(data_dir + "bad/ok.erofs")));
  auto const root = reader->root();
  auto const file = find(*reader, "a");
  REQUIRE(file.has_value());
  Bytes out(1);

  CHECK(reader->read(*root, 0, out).error().code == std::errc::is_a_directory);
  CHECK(reader->readdir(*file, [](auto const&) { return true; }).error().code ==
        std::errc::not_a_directory);
  CHECK(reader->lookup(*file, "x").error().code == std::errc::not_a_directory);
  CHECK(reader->read_link(*root).error().code == std::errc::invalid_argument);
}

}  // namespace reader_test
}  // namespace erofs_oci::erofs
