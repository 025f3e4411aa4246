// SPDX-License-Identifier: Apache-2.0
// Tar to tree to image and back: what was read from an archive is what a reader of the index finds.
#include <catch.hpp>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/erofs/load.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/tarindex/merge.hpp>

#include "support.hpp"

namespace erofs_oci::tarindex {
namespace round_trip_test {

Bytes image_of(erofs::Tree const& tree, std::vector<erofs::Device> devices,
               erofs::WriteOptions options) {
  auto const writer = erofs::Writer::make(tree, std::move(devices), std::move(options));
  if (!writer) FAIL(writer.error().message());
  Bytes image;
  auto const ok = writer->write([&](std::span<std::byte const> piece) {
    image.insert(image.end(), piece.begin(), piece.end());
    return true;
  });
  REQUIRE(ok);
  CHECK(image.size() == writer->size());
  return image;
}

std::uint64_t blocks_of(Bytes const& archive) {
  return (archive.size() + 511) / 512;
}

TEST_CASE("A layer's index gives the layer back", "[tarindex][fixture]") {
  for (auto const* const name : {"L0",
                                 "L1",
                                 "L2",
                                 "basic",
                                 "dirtypad",
                                 "empty",
                                 "fwdhl",
                                 "garbage",
                                 "gnu",
                                 "noeot",
                                 "nultype",
                                 "odd",
                                 "oneblk",
                                 "pax",
                                 "prefix",
                                 "root",
                                 "rootopq",
                                 "sparse-gnu",
                                 "sparse-pax0.0",
                                 "sparse-pax0.1",
                                 "sparse-pax1.0",
                                 "unknown",
                                 "v7",
                                 "whiteout"}) {
    INFO(name);
    std::vector<Bytes> const archives{read_data("in/" + std::string(name) + ".tar")};
    auto const layer = layer_of(archives[0]);
    REQUIRE(layer);
    Lister const before(layer->tree, archives, Show::overlay);
    Lister const bare(layer->tree, archives, Show::nothing);

    auto image = image_of(layer->tree, {{blocks_of(archives[0]), ""}},
                          {.marks = erofs::Marks::trusted, .implied = erofs::Implied::keep});
    auto const reader = erofs::Reader<Memory>::open(Memory(std::move(image)));
    if (!reader) FAIL(reader.error().message());
    auto const tree = erofs::load_tree(*reader, erofs::Marks::trusted);

    if (!tree) FAIL(tree.error().message());
    Lister const after(*tree, archives, Show::overlay);
    check_rows(after.rows(), before.rows());
    // Not only what the kernel sees: a mark is a mark in both trees, and no attribute or device.
    check_rows(Lister(*tree, archives, Show::nothing).rows(), bare.rows());
    CHECK(after.implied() == before.implied());
    CHECK(tree->root().directory()->opaque == layer->tree.root().directory()->opaque);
  }
}

TEST_CASE("An image's index gives the merged tree back", "[tarindex][merge][fixture]") {
  std::vector<Bytes> const archives{read_data("in/L0.tar"), read_data("in/L1.tar"),
                                    read_data("in/L2.tar")};
  std::vector<Layer> layers;
  for (auto const& archive : archives) layers.push_back(*layer_of(archive));
  std::vector<MergeInput> inputs;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    inputs.push_back({&layers[i], {blocks_of(archives[i]), "layer" + std::to_string(i)}});
  }
  auto const merged = merge(inputs);
  REQUIRE(merged);

  auto const reader =
      erofs::Reader<Memory>::open(Memory(image_of(merged->tree, merged->devices, {})));
  if (!reader) FAIL(reader.error().message());
  auto const tree = erofs::load_tree(*reader);

  if (!tree) FAIL(tree.error().message());
  check_rows(Lister(*tree, archives, Show::overlay).rows(),
             Lister(merged->tree, archives, Show::overlay).rows());
}

}  // namespace round_trip_test
}  // namespace erofs_oci::tarindex
