// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/open_layers.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/source/local.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>

#include "data_path.hpp"

namespace erofs_oci {
namespace open_layers_test {

namespace fs = std::filesystem;
std::string const data = test_data("/tarindex/");

Bytes contents(std::string const& path) {
  auto const file = Local::open(path);
  if (!file) throw std::runtime_error(file.error().message());
  Bytes bytes(static_cast<std::size_t>(file->size()));
  if (!read_exact(*file, 0, bytes)) throw std::runtime_error(path);
  return bytes;
}

constexpr auto gzip_type = "application/vnd.oci.image.layer.v1.tar+gzip";

ImageLayer layer_of(Bytes blob, std::string media_type = gzip_type) {
  Descriptor descriptor;
  descriptor.digest = digest_of(blob);
  descriptor.size = blob.size();
  descriptor.media_type = std::move(media_type);
  return {descriptor, AnySource(Memory(std::move(blob)))};
}

Bytes packed(std::string const& name) {
  return testing::gzip_member({contents(data + "in/" + name + ".tar"), 6});
}

std::vector<ImageLayer> three_layers() {
  std::vector<ImageLayer> layers;
  layers.push_back(layer_of(packed("L0")));
  layers.push_back(
      layer_of(contents(data + "in/L1.tar"), "application/vnd.oci.image.layer.v1.tar"));
  layers.push_back(layer_of(packed("L2")));
  return layers;
}

Result<MergedImage> open_all(std::vector<ImageLayer> layers, IndexOptions const& options = {}) {
  auto indexes = index_layers(layers, options);
  if (!indexes) return fail(indexes.error());
  return open_layers(std::move(layers), *indexes, {}, options);
}

// Path -> digest of each regular file, "" for the rest.
std::map<std::string, std::string> files_of(AnySource const& device) {
  std::map<std::string, std::string> files;
  auto const reader = erofs::Reader<Ref<AnySource>>::open(Ref(device));
  REQUIRE(reader.has_value());
  auto const visit = [&](erofs::Visit const& at) {
    if (at.error != nullptr) FAIL(at.path + ": " + at.error->message());
    auto& digest = files[at.path];
    if (!at.inode->is_regular()) return erofs::Step::enter;
    Sha256 hash;
    auto const read = reader->stream_file(*at.inode, 0, at.inode->size(), [&](auto bytes) {
      hash.update(bytes);
      return true;
    });
    if (!read) FAIL(at.path + ": " + read.error().message());
    digest = hash.finish().hex();
    return erofs::Step::enter;
  };
  auto const ok = erofs::walk(*reader, visit);
  if (!ok) FAIL(ok.error().message());
  return files;
}

std::map<std::string, std::string> manifest(std::string const& name) {
  std::map<std::string, std::string> files;
  std::ifstream lines(data + "manifest/" + name + ".jsonl");
  for (std::string line; std::getline(lines, line);) {
    auto const entry = json::parse(as_bytes(line), name);
    REQUIRE(entry.has_value());
    files[*json::text(*entry, "path")] = *json::text(*entry, "sha256");
  }
  REQUIRE_FALSE(files.empty());
  return files;
}

TEST_CASE("Three layers are one device, with the kernel's view of them",
          "[image][open_layers][threads]") {
  auto const image = open_all(three_layers());

  if (!image) FAIL(image.error().message());
  CHECK(image->metadata_size % erofs::page_size == 0);
  CHECK(files_of(image->device.source) == manifest("merged-strip"));
}

TEST_CASE("No page of the device has data of two layers, or data and metadata",
          "[image][open_layers]") {
  auto const image = open_all(three_layers());
  REQUIRE(image.has_value());

  auto const reader = erofs::Reader<Ref<AnySource>>::open(Ref(image->metadata));
  REQUIRE(reader.has_value());
  REQUIRE(reader->frame().slots().size() == 3);
  for (std::size_t slot = 0; slot < 3; ++slot) {
    CHECK(reader->frame().slot_first(slot) * erofs::block_size % erofs::page_size == 0);
  }
  CHECK(image->device.source.size() % erofs::page_size == 0);
}

TEST_CASE("An image comes the same from the store as built", "[image][open_layers]") {
  test::Scratch const directory;
  auto const store = IndexStore::open(directory / "store");
  REQUIRE(store.has_value());
  IndexOptions options;
  options.store = &*store;
  int builds = 0;
  std::mutex mutex;
  options.progress = [&](LayerProgress const& p) {
    std::lock_guard const lock(mutex);
    builds += p.done == p.total ? 1 : 0;
  };

  auto const first = open_all(three_layers(), options);
  REQUIRE(first.has_value());
  CHECK(builds == 3);
  auto const again = open_all(three_layers(), options);
  REQUIRE(again.has_value());
  CHECK(builds == 3);

  CHECK(first->metadata_size == again->metadata_size);
  CHECK(files_of(first->device.source) == files_of(again->device.source));
}

TEST_CASE("A layer that is there twice is read twice", "[image][open_layers]") {
  std::vector<ImageLayer> layers;
  layers.push_back(layer_of(packed("basic")));
  layers.push_back(layer_of(packed("L2")));
  layers.push_back(layer_of(packed("basic")));
  auto const image = open_all(std::move(layers));
  if (!image) FAIL(image.error().message());
  CHECK(files_of(image->device.source).size() > 5);
}

TEST_CASE("A blob that is not what its digest names is refused", "[image][open_layers][error]") {
  auto layers = three_layers();
  layers[1].descriptor.digest = digest_of(as_bytes("something else"));

  auto const image = open_all(std::move(layers));

  REQUIRE_FALSE(image.has_value());
  CHECK(image.error().code == Errc::digest_mismatch);
  CHECK_THAT(image.error().message(), Catch::StartsWith("layer 1 (sha256:"));
}

TEST_CASE("Messages number a layer as the image does", "[image][open_layers][error]") {
  auto chosen = three_layers();
  chosen.erase(chosen.begin(), chosen.begin() + 2);
  chosen[0].number = 2;
  std::vector<std::size_t> told;
  IndexOptions options;
  options.parallel = 1;
  options.progress = [&](LayerProgress const& at) { told.push_back(at.layer); };

  auto const indexes = index_layers(chosen, options);
  REQUIRE(indexes.has_value());
  REQUIRE_FALSE(told.empty());
  CHECK(std::ranges::all_of(told, [](std::size_t n) { return n == 2; }));

  chosen[0].descriptor.digest = digest_of(as_bytes("something else"));
  auto const refused = index_layers(chosen, options);
  REQUIRE_FALSE(refused.has_value());
  CHECK_THAT(refused.error().message(), Catch::StartsWith("layer 2 (sha256:"));
}

TEST_CASE("A layer that goes by SHA-512 is checked by it", "[image][open_layers]") {
  auto const wrong = GENERATE(false, true);
  auto const blob = packed("L0");
  auto layers = three_layers();
  layers[0].descriptor.digest =
      digest_of(wrong ? to_bytes("other") : blob, DigestAlgorithm::sha512);

  auto const image = open_all(std::move(layers));

  REQUIRE(image.has_value() != wrong);
  if (wrong) CHECK(image.error().code == Errc::digest_mismatch);
}

TEST_CASE("A changed byte under an index is an error, never bytes", "[image][open_layers][error]") {
  auto const tar = contents(data + "in/basic.tar");
  auto const blob = testing::gzip_member({tar, 6});
  std::vector<ImageLayer> good;
  good.push_back(layer_of(blob));
  auto const indexes = index_layers(good);
  REQUIRE(indexes.has_value());
  auto bad = blob;
  bad[bad.size() / 2] ^= std::byte{1};
  std::vector<ImageLayer> layers;
  layers.push_back({good[0].descriptor, AnySource(Memory(bad))});

  auto const image = open_layers(std::move(layers), *indexes);

  REQUIRE(image.has_value());
  Bytes out(512);
  auto const n = image->device.source.read_at(image->metadata_size, out);
  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::digest_mismatch);
}

TEST_CASE("A zstd layer is refused by name", "[image][open_layers][error]") {
  std::vector<ImageLayer> layers;
  layers.push_back(layer_of(packed("L0")));
  layers.push_back(
      layer_of(to_bytes("\x28\xb5\x2f\xfd"), "application/vnd.oci.image.layer.v1.tar+zstd"));
  auto const image = open_all(std::move(layers));
  REQUIRE_FALSE(image.has_value());
  CHECK(image.error().code == Errc::unsupported);
  CHECK_THAT(image.error().message(),
             Catch::Contains("layer 1 (sha256:") && Catch::Contains("zstd"));
}

TEST_CASE("An EROFS image is a layer, too", "[image][open_layers]") {
  // Encoding C over its own tar: a plain EROFS image with its data in itself.
  auto const tar = contents(data + "in/basic.tar");
  tarindex::BuildOptions options;
  options.addressing = erofs::Addressing::absolute;
  auto const built = tarindex::build_layer(Memory(tar), options);
  REQUIRE(built.has_value());
  auto native = built->tarindex;
  native.insert(native.end(), tar.begin(), tar.end());
  native.resize((native.size() + 511) / 512 * 512);
  std::vector<ImageLayer> layers;
  layers.push_back(layer_of(native, "application/vnd.example.layer.v1.erofs"));
  layers.push_back(layer_of(packed("L2")));
  std::vector<ImageLayer> same;
  same.push_back(layer_of(testing::gzip_member({tar, 6})));
  same.push_back(layer_of(packed("L2")));

  auto const image = open_all(std::move(layers));
  auto const expected = open_all(std::move(same));

  if (!image) FAIL(image.error().message());
  REQUIRE(expected.has_value());
  CHECK(files_of(image->device.source) == files_of(expected->device.source));
}

TEST_CASE("A source that fails while a layer is indexed ends it with its cause",
          "[image][open_layers][error]") {
  auto layers = three_layers();
  layers[2].blob = AnySource(
      testing::Flaky(Memory(packed("L2")),
                     testing::FlakyPlan{0, 1000, 0, Error{Errc::unavailable, "no network"}}));
  auto const image = open_all(std::move(layers));
  REQUIRE_FALSE(image.has_value());
  CHECK(image.error().code == Errc::unavailable);
  CHECK_THAT(image.error().message(),
             Catch::StartsWith("layer 2 (sha256:") && Catch::Contains("no network"));
}

}  // namespace open_layers_test
}  // namespace erofs_oci
