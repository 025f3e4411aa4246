// SPDX-License-Identifier: Apache-2.0
#include "verify.hpp"  // first: proves that the header stands alone

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/window.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/testing/tar_maker.hpp>

#include "packed_layer.hpp"

namespace mount_oci {
namespace verify_test {

using erofs_oci::AnySource;
using erofs_oci::Bytes;
using erofs_oci::Memory;
using erofs_oci::tarindex::BuiltLayer;
namespace erofs = erofs_oci::erofs;
namespace testing = erofs_oci::testing;

/// What compare_layer() finds between a blob and an index.
LayerComparison compare(Bytes const& blob, BuiltLayer index) {
  auto const layer = found_layer(blob, index.index.blob);
  auto const opened = erofs_oci::opened_layer(std::move(index)).value();
  ImageOptions const options;
  return compare_layer(AnySource(Memory(blob)), erofs_oci::DigestAlgorithm::sha256,
                       index_to_verify(layer, opened, options).value(), {})
      .value();
}

TEST_CASE("An index that was made of a layer agrees with it", "[tool][verify]") {
  PackedLayer const layer;
  REQUIRE(layer.index.index.spans.size() > 3);

  auto const compared = compare(layer.gzip, layer.index);

  CHECK(compared.difference.value_or("none") == "none");
  CHECK(compared.blob == erofs_oci::digest_of(layer.gzip));
  CHECK(compared.contents == erofs_oci::digest_of(layer.tar));

  auto const plain =
      compare(layer.tar, erofs_oci::tarindex::build_layer(Memory(layer.tar)).value());
  CHECK(plain.difference.value_or("none") == "none");
  CHECK(plain.contents == plain.blob);
}

TEST_CASE("Whatever an index says of a file that is not so is found", "[tool][verify][error]") {
  struct Lie {
    char const* what;
    std::function<void(erofs::Tree&, erofs::NodeId)> tell;
    std::string found;
  };
  auto const lies = std::vector<Lie>{
      {"a mode", [](auto& tree, auto id) { tree[id].permissions = 06755; },
       "/d/file2: another mode"},
      {"an owner", [](auto& tree, auto id) { tree[id].uid = 7; }, "/d/file2: another owner"},
      {"a time", [](auto& tree, auto id) { tree[id].mtime.seconds += 1; },
       "/d/file2: another time"},
      {"an attribute",
       [](auto& tree, auto id) {
         tree[id].xattrs.push_back({"security.capability", Bytes(20, std::byte{1})});
       },
       "/d/file2: other attributes"},
      {"a place",
       [](auto& tree, auto id) { tree[id].regular()->extents.front().device_offset += 512; },
       "/d/file2: content from another place"},
      {"a type",
       [](auto& tree, auto id) {
         tree[id].kind = erofs::Kind::symlink;
         tree[id].content = erofs::Symlink{"/etc/shadow"};
       },
       "/d/file2: another type"},
  };
  for (auto const& lie : lies) {
    INFO(lie.what);
    PackedLayer layer;
    auto& tree = layer.index.layer.tree;
    auto const directory = tree[erofs::root_id].directory()->children.at("d");
    lie.tell(tree, tree[directory].directory()->children.at("file2"));
    REQUIRE(erofs_oci::tarindex::write_tarindex(layer.index));

    CHECK(compare(layer.gzip, layer.index).difference.value_or("none") == lie.found);
  }
}

TEST_CASE("An index may end with the last file, and not before", "[tool][verify][error]") {
  PackedLayer layer;
  layer.index.index.decoded_size -= 1024;  // the two blocks at the end
  CHECK(compare(layer.gzip, layer.index).difference.value_or("none") == "none");
  layer.index.index.decoded_size -= 20'000;
  CHECK_THAT(compare(layer.gzip, layer.index).difference.value_or("none"),
             Catch::StartsWith("data of files behind the "));
  layer.index.index.decoded_size += 100'000;
  CHECK_THAT(compare(layer.gzip, layer.index).difference.value_or("none"),
             Catch::Contains("other bytes") || Catch::Contains("the tar has "));
}

TEST_CASE("A link to a lower layer that the layer has not is found", "[tool][verify][error]") {
  auto const tar = testing::TarMaker().hard_link("kept", "lower").end().bytes();
  auto const index = erofs_oci::tarindex::build_layer(Memory(tar)).value();
  REQUIRE(index.layer.dangling.size() == 1);
  CHECK(compare(tar, index).difference.value_or("none") == "none");

  auto lie = index;
  lie.layer.dangling[0].target = "etc/shadow";
  CHECK(compare(tar, lie).difference == "other hard links to files of lower layers");
  lie.layer.dangling.clear();
  CHECK(compare(tar, lie).difference == "other hard links to files of lower layers");
}

TEST_CASE("A window that decodes to other bytes is found, whichever it is",
          "[tool][verify][property][error]") {
  PackedLayer const layer;
  rc::prop("one byte of what a span looks back at is another", [&] {
    auto index = layer.index;
    auto const with_window = [&] {
      std::vector<std::size_t> numbers;
      for (std::size_t i = 0; i < index.index.spans.size(); ++i) {
        if (!index.index.spans[i].packed_window.empty()) numbers.push_back(i);
      }
      return numbers;
    }();
    RC_PRE(!with_window.empty());
    auto& span = index.index.spans[*rc::gen::elementOf(with_window)];
    std::array<std::byte, erofs_oci::gzip_window_size> window{};
    RC_ASSERT(erofs_oci::unpack_window(span.packed_window, window).has_value());
    // Only bytes that are used are in it: the others are zero.
    std::vector<std::size_t> used;
    for (std::size_t i = 0; i < window.size(); ++i) {
      if (window.at(i) != std::byte{}) used.push_back(i);
    }
    RC_PRE(!used.empty());
    window.at(*rc::gen::elementOf(used)) ^= std::byte{*rc::gen::inRange<std::uint8_t>(1, 255)};
    erofs_oci::WindowUse all;
    all.set();
    span.packed_window = erofs_oci::pack_window(window, all);

    auto const difference = compare(layer.gzip, index).difference.value_or("none");

    RC_ASSERT(difference.starts_with("other bytes "));
  });
}

TEST_CASE("Another layer than the index's is found, and its digests are told",
          "[tool][verify][error]") {
  PackedLayer const layer;
  auto other = layer.gzip;
  other[other.size() / 2] ^= std::byte{0x10};

  auto const compared = compare(other, layer.index);

  CHECK(compared.difference.has_value());
  CHECK(compared.blob == erofs_oci::digest_of(other));
  CHECK(compared.contents == erofs_oci::Digest());
}

}  // namespace verify_test
}  // namespace mount_oci
