// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/erofs/load.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/erofs/fsck.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/source/memory.hpp>

namespace erofs_oci::erofs {
namespace load_test {

constexpr std::size_t shared_each = 10;

/// An image with ten large xattrs, which each of `files` files has.
Bytes sharing_image(std::size_t files) {
  constexpr std::size_t padding = 4 * shared_each - 4 - 1;  // an entry, to make room for the ids
  Tree tree;
  for (std::size_t k = 0; k < shared_each; ++k) {
    auto node = make_node(Kind::fifo);
    node.xattrs = {{"user." + std::to_string(k), Bytes(60000, std::byte{'x'})}};
    tree.add(root_id, "large" + std::to_string(k), std::move(node));
  }
  for (std::size_t i = 0; i < files; ++i) {
    auto node = make_node(Kind::fifo);
    node.xattrs = {{"user.p", Bytes(padding)}};
    tree.add(root_id, "f" + std::to_string(i), std::move(node));
  }
  auto image = Writer::make(tree, {})->to_bytes();
  image[superblock_offset + 8] &= ~std::byte{1};  // no checksum
  auto const reader = Reader<Memory>::open(Memory(image)).value();
  auto const root = reader.root().value();
  auto const position = [&](std::string const& name) {
    auto const entry = reader.lookup(root, name).value().value();
    return static_cast<std::size_t>(reader.inode(entry.first)->xattr_position());
  };
  std::vector<std::uint32_t> ids;
  for (std::size_t k = 0; k < shared_each; ++k) {
    auto const entry = position("large" + std::to_string(k)) + XattrHeader::on_disk_size;
    ids.push_back(static_cast<std::uint32_t>(entry / 4));
  }
  for (std::size_t i = 0; i < files; ++i) {
    auto const area = position("f" + std::to_string(i));
    image[area + 4] = static_cast<std::byte>(shared_each);
    for (std::size_t k = 0; k < shared_each; ++k) {
      store_le(ids[k],
               std::span(image).subspan(area + XattrHeader::on_disk_size + 4 * k).first<4>());
    }
  }
  return image;
}

TEST_CASE("A file has the shared xattrs that it names", "[erofs][reader]") {
  auto const image = sharing_image(6000);
  auto const reader = Reader<Memory>::open(Memory(image)).value();
  auto const file = find(reader, "/f7").value();
  auto const xattrs = reader.xattrs(file);
  REQUIRE(xattrs);
  CHECK(xattrs->size() == shared_each);
  CHECK(xattrs->front().name == "user.0");
  CHECK(xattrs->front().value.size() == 60000);
}

TEST_CASE("load_tree refuses files that share more than memory holds", "[erofs][load][error]") {
  auto const image = sharing_image(6000);  // of 1.3 MB, which would be 3.6 GB

  auto const tree = load_tree(Reader<Memory>::open(Memory(image)).value());

  REQUIRE_FALSE(tree);
  CHECK(tree.error().code == Errc::corrupt);
  CHECK(tree.error().context.find("larger than the image together") != std::string::npos);
}

TEST_CASE("check stops reading xattrs that are shared without end", "[erofs][fsck][error]") {
  auto const image = sharing_image(6000);

  auto const findings = check(Reader<Memory>::open(Memory(image)).value());

  REQUIRE(findings);
  CHECK_FALSE(findings->sound());
  CHECK(std::ranges::any_of(findings->list, [](auto const& finding) {
    return finding.text.find("shared xattrs are named so often") != std::string::npos;
  }));
}

}  // namespace load_test
}  // namespace erofs_oci::erofs
