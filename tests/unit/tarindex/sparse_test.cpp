// SPDX-License-Identifier: Apache-2.0
// Sparse files of any shape, from an archive through its tarindex to a reader, against the bytes
// that they stand for.
#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/erofs/load.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/tarindex/merge.hpp>

#include "sparse_archive.hpp"
#include "support.hpp"

namespace erofs_oci::tarindex {
namespace sparse_test {

using testing::TarMaker;

Bytes in_blocks(Bytes archive) {
  archive.resize((archive.size() + 511) / 512 * 512);
  return archive;
}

/// The content of `name` in an image whose devices are `archives`.
Bytes read_back(Bytes image, std::vector<Bytes> const& archives, std::string const& name) {
  std::vector<AnySource> devices;
  for (auto const& archive : archives) devices.emplace_back(Memory(in_blocks(archive)));
  auto const reader = erofs::Reader<Memory>::open(Memory(std::move(image)), std::move(devices));
  if (!reader) FAIL(reader.error().message());
  auto const inode = erofs::find(*reader, "/" + name, erofs::Follow::none);
  if (!inode) FAIL(inode.error().message());
  Bytes bytes(static_cast<std::size_t>(inode->size()) + 1);
  auto const n = reader->read(*inode, 0, bytes);
  if (!n) FAIL(n.error().message());
  bytes.resize(*n);
  return bytes;
}

/// read_back() == `content`, but not printed by a macro when it fails.
bool shows(Bytes image, std::vector<Bytes> const& archives, std::string const& name,
           Bytes const& content) {
  return read_back(std::move(image), archives, name) == content;
}

BuiltLayer built_of(Bytes const& archive) {
  auto built = build_layer(Memory(archive));
  if (!built) FAIL(built.error().message());
  return *std::move(built);
}

TEST_CASE("One byte at an odd place is served", "[tarindex][sparse]") {
  auto const form =
      GENERATE(SparseForm::gnu, SparseForm::pax00, SparseForm::pax01, SparseForm::pax10);
  auto const file = sparse_file({{50000, 1}}, 60000);
  TarMaker maker;
  add_sparse(maker, "s", file, form);
  maker.file("next", "n").end();

  auto const built = built_of(maker.bytes());

  CHECK(read_back(built.tarindex, {maker.bytes()}, "s") == file.content);
  CHECK(read_back(built.tarindex, {maker.bytes()}, "next") == to_bytes("n"));
}

/// Segments that a random archiver could write: odd, adjacent, empty, up to the end, in whole
/// blocks.
SparseFile any_sparse() {
  std::vector<tar::Segment> segments;
  std::uint64_t at = 0;
  auto const step = [] {
    return *rc::gen::oneOf(rc::gen::element<std::uint64_t>(0, 1, 511, 512, 513, 1024, 4096),
                           rc::gen::inRange<std::uint64_t>(0, 3000),
                           rc::gen::map(rc::gen::inRange<std::uint64_t>(0, 40),
                                        [](std::uint64_t n) { return n * 512; }));
  };
  auto const count = *rc::gen::inRange<std::size_t>(0, 40);
  for (std::size_t i = 0; i < count; ++i) {
    at += step();
    auto const length = step();
    segments.push_back({at, length});
    at += length;
  }
  auto const hole = *rc::gen::element<std::uint64_t>(0, 0, 1, 600, 5000, 1 << 17);
  if (*rc::gen::arbitrary<bool>()) segments.push_back({at + hole, 0});
  return sparse_file(std::move(segments), at + hole);
}

TEST_CASE("Any sparse file reads as the bytes that it stands for", "[tarindex][sparse][property]") {
  rc::prop("for all maps and forms, in a layer and merged with another one", [] {
    auto const file = any_sparse();
    auto const form =
        *rc::gen::element(SparseForm::gnu, SparseForm::pax00, SparseForm::pax01, SparseForm::pax10);
    TarMaker maker;
    maker.file("before", std::string(*rc::gen::inRange<std::size_t>(0, 700), 'b'));
    add_sparse(maker, "s", file, form);
    maker.file("after", "after").end();
    auto const archive = maker.bytes();
    auto const layer = built_of(archive);
    RC_ASSERT(shows(layer.tarindex, {archive}, "s", file.content));

    // As a store has it, under a layer that replaces another file.
    auto const reader = erofs::Reader<Memory>::open(Memory(layer.tarindex));
    RC_ASSERT(reader.has_value());
    auto tree = erofs::load_tree(*reader, erofs::Marks::trusted);
    if (!tree) RC_FAIL(tree.error().message());
    Layer const stored{*std::move(tree), {}, {}};
    auto const upper_archive =
        TarMaker().file("before", "upper").hard_link("link", "s").end().bytes();
    auto const upper = built_of(upper_archive);
    std::vector<MergeInput> const inputs{{&stored, device_of(layer.index)},
                                         {&upper.layer, device_of(upper.index)}};
    auto const merged = merge(inputs);
    RC_ASSERT(merged.has_value());
    auto const writer = erofs::Writer::make(merged->tree, merged->devices);
    if (!writer) RC_FAIL(writer.error().message());
    auto const image = writer->to_bytes();
    RC_ASSERT(merged->devices.size() == 2u);
    RC_ASSERT(shows(image, {archive, upper_archive}, "s", file.content));
    RC_ASSERT(shows(image, {archive, upper_archive}, "link", file.content));
    RC_ASSERT(shows(image, {archive, upper_archive}, "before", to_bytes("upper")));

    // Flat, without a device table: what any reader of EROFS understands.
    auto const flat = erofs::Writer::make(merged->tree, merged->devices,
                                          {.addressing = erofs::Addressing::absolute});
    RC_ASSERT(flat.has_value());
    auto whole = flat->to_bytes();
    for (auto const& part : {in_blocks(archive), in_blocks(upper_archive)}) {
      whole.insert(whole.end(), part.begin(), part.end());
    }
    RC_ASSERT(shows(whole, {}, "s", file.content));
  });
}

TEST_CASE("An archive that comes in pieces gives the same copies", "[tarindex][sparse]") {
  TarMaker maker;
  add_sparse(maker, "s",
             sparse_file({{1, 700}, {701, 0}, {1500, 1}, {1501, 3000}, {9000, 1000}}, 10000),
             SparseForm::pax01);
  auto const archive = maker.end().bytes();
  auto const whole = built_of(archive).tarindex;
  for (std::size_t const piece : {1U, 7U, 511U, 512U, 513U, 1000U}) {
    LayerBuilder builder;
    tar::Decoder decoder;
    auto const visit = [&](tar::Entry&& entry) { return builder.apply(std::move(entry)); };
    for (std::size_t at = 0; at < archive.size(); at += piece) {
      auto const rest = std::span(archive).subspan(at);
      REQUIRE(decoder.push(rest.first(std::min(piece, rest.size())), visit));
    }
    REQUIRE(decoder.finish(visit));
    BuiltLayer built = built_of(archive);
    built.layer = std::move(builder).finish();
    REQUIRE(write_tarindex(built));
    CHECK(built.tarindex == whole);
  }
}

TEST_CASE("Copies count as what files bring along", "[tarindex][sparse][error]") {
  TarMaker maker;
  add_sparse(maker, "s", sparse_file({{1, 4000}}, 5000), SparseForm::pax10);
  maker.end();
  auto const whole = layer_of(maker.bytes());
  REQUIRE(whole);
  auto const bytes = whole->tree.memory();
  auto const of = [&](std::uint64_t trees) {
    return LayerOptions{.memory = std::make_shared<ImageMemory>(MemoryBudget{2 * trees}, 1 << 20)};
  };
  CHECK(layer_of(maker.bytes(), of(bytes)));
  auto const refused = layer_of(maker.bytes(), of(bytes - 4000));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().context.find("take more than") != std::string::npos);
}

}  // namespace sparse_test
}  // namespace erofs_oci::tarindex
