// SPDX-License-Identifier: Apache-2.0
// One wrong bit in what a server sends, in each form in which a layer can be served: which of them
// never hand it on, and which find it once all has been read. README.md has the same table.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/zinfo.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/image/open.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/image/soci_layer.hpp>
#include <erofs_oci/oci/layout.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/tar_maker.hpp>
#include <erofs_oci/testing/ztoc_maker.hpp>

namespace erofs_oci {
namespace flipped_bits_test {

namespace fs = std::filesystem;

/// A server that sends one bit wrong.
struct Fault {
  std::shared_ptr<Bytes const> bytes;
  std::size_t bit = ~std::size_t{0};  // none
  unsigned from = 0;                  // the first read of the byte that gets it, and the one
  unsigned to = ~0u;                  // behind the last
  bool remote = false;
  std::shared_ptr<std::atomic<unsigned>> reads = std::make_shared<std::atomic<unsigned>>(0);

  [[nodiscard]] std::uint64_t size() const noexcept { return bytes->size(); }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const n = readable(size(), offset, out.size());
    if (n == 0) return n;
    auto const begin = static_cast<std::size_t>(offset);
    std::copy_n(bytes->begin() + static_cast<std::ptrdiff_t>(begin), n, out.begin());
    if (bit / 8 < begin || bit / 8 >= begin + n) return n;
    auto const number = (*reads)++;
    if (number >= from && number < to) {
      out[bit / 8 - begin] ^= std::byte{1} << static_cast<int>(bit % 8);
    }
    return n;
  }
  [[nodiscard]] bool is_remote() const noexcept { return remote; }
};

Bytes noise(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

/// Files of a layer, of which most do not shrink.
Bytes layer_tar() {
  testing::TarMaker tar;
  tar.dir("d");
  for (unsigned i = 0; i < 5; ++i) {
    auto const data = i % 3 == 0 ? testing::compressible_bytes(20'000, i) : noise(25'000, i);
    tar.member({.name = "d/file" + std::to_string(i)}, data);
  }
  return tar.end().bytes();
}

template <class T>
T valued(Result<T> result) {
  if (!result) FAIL(result.error().message());
  return *std::move(result);
}

Bytes zinfo_of(GzipIndex const& index) {
  Bytes bytes;
  auto const written = write_zinfo(index, 64 * 1024, [&](std::span<std::byte const> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return true;
  });
  if (!written) FAIL(written.error().message());
  return bytes;
}

AnySource memory(Bytes bytes) {
  return AnySource(Memory(std::move(bytes)));
}

ImageLayer layer_of(AnySource blob, Digest const& digest, bool is_erofs = false) {
  Descriptor descriptor;
  descriptor.digest = digest;
  descriptor.size = blob.size();
  descriptor.media_type =
      is_erofs ? "application/vnd.example.erofs" : "application/vnd.oci.image.layer.v1.tar+gzip";
  return {descriptor, std::move(blob)};
}

/// What the forms are made of.
class World {
 public:
  World() {
    tar = layer_tar();
    auto const made = testing::gzip_blob({{tar, 6, 0, 30'000}}).spaced(60'000);
    gzip = made.blob;
    tarindex::BuildOptions options{.span_size = 64 * 1024};
    built = valued(tarindex::build_layer(Memory(gzip), options));
    plain = valued(tarindex::build_layer(Memory(tar), options));
    zinfo = zinfo_of(made.index());
    ztoc = testing::gzip_ztoc(gzip, tar.size(), made.index(), 60'000);
    ztoc.files = testing::ztoc_files(tar);

    options.addressing = erofs::Addressing::absolute;
    native = valued(tarindex::build_layer(Memory(tar), options)).tarindex;
    native.insert(native.end(), tar.begin(), tar.end());
    auto const packed = testing::gzip_blob({{native, 6, 0, 30'000}}).spaced(60'000);
    native_gzip = packed.blob;
    native_zinfo = zinfo_of(packed.index());

    store.emplace(valued(IndexStore::open(directory / "store")));
    for (auto const* const each : {&built, &plain}) {
      REQUIRE(store->put_layer(each->index.blob, *each));
    }
    std::vector<ImageLayer> layers;
    layers.push_back(layer_of(memory(native), digest_of(native), true));
    REQUIRE(index_layers(layers, {.store = &*store, .span_size = 64 * 1024}));

    fs::create_directories(directory / "layout/blobs/sha256");
    std::ofstream(directory / "layout/oci-layout") << R"({"imageLayoutVersion":"1.0.0"})";
    std::ofstream(directory / "layout/index.json") << R"({"schemaVersion":2,"manifests":[]})";
    blob_file = directory / ("layout/blobs/sha256/" + digest_of(gzip).hex());
    write(gzip);
  }

  void write(Bytes const& bytes) const {
    std::ofstream(blob_file, std::ios::binary) << as_text(bytes);
  }

  test::Scratch directory;
  Bytes tar, gzip, zinfo, native, native_gzip, native_zinfo;
  tarindex::BuiltLayer built, plain;
  Ztoc ztoc;
  std::optional<IndexStore> store;
  std::string blob_file;
};

struct Form {
  std::string name;
  Bytes const World::* blob;
  bool strict;  // never a wrong byte; else they are found once all have been read
  std::function<Result<DeviceImage>(World const&, AnySource blob)> open;
};

Result<DeviceImage> merged(Result<StoredLayer> index, ImageLayer layer) {
  if (!index) return fail(index.error());
  std::vector<StoredLayer> indexes;
  indexes.push_back(*std::move(index));
  std::vector<ImageLayer> layers;
  layers.push_back(std::move(layer));
  return open_layers(std::move(layers), indexes).map([](MergedImage image) {
    return std::move(image.device);
  });
}

Result<StoredLayer> stored(World const& world, Digest const& blob) {
  auto found = world.store->find_layer(blob);
  if (!found) return fail(found.error());
  return **std::move(found);
}

std::vector<Form> forms() {
  auto const sources = [](AnySource blob, Bytes const& content, Bytes const* tarindex,
                          Bytes const* zinfo) {
    LayerSources layer{.blob = std::move(blob)};
    if (tarindex != nullptr) layer.tarindex = memory(*tarindex);
    if (zinfo != nullptr) layer.zinfo = memory(*zinfo);
    layer.digest = digest_of(content);
    return layer;
  };
  auto const open_known = [](World const& world, LayerSources layer) -> Result<DeviceImage> {
    EROFS_OCI_TRY_ASSIGN(layer.known, stored(world, *layer.digest));
    return open_image(std::move(layer));
  };
  return {
      {"own index, just made", &World::gzip, true,
       [](auto& w, AnySource blob) {
         return merged(opened_layer(w.built), layer_of(std::move(blob), w.built.index.blob));
       }},
      {"own index, from the store", &World::gzip, true,
       [](auto& w, AnySource blob) {
         return merged(stored(w, w.built.index.blob),
                       layer_of(std::move(blob), w.built.index.blob));
       }},
      {"SOCI", &World::gzip, true,
       [](auto& w, AnySource blob) -> Result<DeviceImage> {
         auto layer = layer_of(std::move(blob), w.built.index.blob);
         EROFS_OCI_TRY_ASSIGN(auto index, soci_layer(w.ztoc, layer.descriptor));
         return merged(opened_layer(std::move(index)), std::move(layer));
       }},
      {"EROFS image, indexed", &World::native, true,
       [](auto& w, AnySource blob) {
         auto const digest = digest_of(w.native);
         return merged(stored(w, digest), layer_of(std::move(blob), digest, true));
       }},
      {"tarindex and zinfo, layer in the store", &World::gzip, true,
       [=](auto& w, AnySource blob) {
         return open_known(w, sources(std::move(blob), w.gzip, &w.built.tarindex, &w.zinfo));
       }},
      {"tarindex, layer in the store", &World::tar, true,
       [=](auto& w, AnySource blob) {
         return open_known(w, sources(std::move(blob), w.tar, &w.plain.tarindex, nullptr));
       }},
      {"EROFS image as it is, layer in the store", &World::native, true,
       [=](auto& w, AnySource blob) {
         return open_known(w, sources(std::move(blob), w.native, nullptr, nullptr));
       }},
      {"tarindex and zinfo", &World::gzip, false,
       [=](auto& w, AnySource blob) {
         return open_image(sources(std::move(blob), w.gzip, &w.built.tarindex, &w.zinfo));
       }},
      {"tarindex and zinfo, of an image layout", &World::gzip, false,
       [=](auto& w, AnySource blob) -> Result<DeviceImage> {
         Bytes bytes(static_cast<std::size_t>(blob.size()));
         EROFS_OCI_TRY(read_exact(blob, 0, bytes));
         w.write(bytes);
         EROFS_OCI_TRY_ASSIGN(auto const layout, Layout::open(w.directory / "layout"));
         EROFS_OCI_TRY_ASSIGN(
             auto file, layout.blob(layer_of(std::move(blob), w.built.index.blob).descriptor));
         return open_image(
             sources(AnySource(std::move(file)), w.gzip, &w.built.tarindex, &w.zinfo));
       }},
      {"tarindex", &World::tar, false,
       [=](auto& w, AnySource blob) {
         return open_image(sources(std::move(blob), w.tar, &w.plain.tarindex, nullptr));
       }},
      {"zinfo", &World::native_gzip, false,
       [=](auto& w, AnySource blob) {
         return open_image(sources(std::move(blob), w.native_gzip, nullptr, &w.native_zinfo));
       }},
      {"EROFS image as it is", &World::native, false,
       [=](auto& w, AnySource blob) {
         return open_image(sources(std::move(blob), w.native, nullptr, nullptr));
       }},
  };
}

/// What came of reading a whole device in random order.
struct Outcome {
  bool failed = false;   // an error, when it was opened or read
  bool wrong = false;    // wrong bytes, and no error with them
  bool seen = false;     // every byte of the blob was read; for those without digests of spans
  bool refuted = false;  // after that, and all reads of the layer fail
  bool proved = false;
};

Outcome read_all(Form const& form, World const& world, Fault fault, Bytes const& truth,
                 unsigned seed) {
  Outcome outcome;
  auto const image = form.open(world, AnySource(std::move(fault)));
  if (!image) return {.failed = true};
  constexpr std::size_t step = 40'000;
  std::vector<std::size_t> offsets;
  for (std::size_t at = 0; at < truth.size(); at += step) offsets.push_back(at);
  std::mt19937 random(seed);
  std::ranges::shuffle(offsets, random);
  Bytes out(step);
  for (auto const at : offsets) {
    auto const n = image->source.read_at(at, out);
    if (!n) {
      outcome.failed = true;
      if (seed % 4 != 0 && !image->proof) break;
    } else {
      auto const wanted = std::min(step, truth.size() - at);
      outcome.wrong |=
          *n != wanted || !std::equal(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(*n),
                                      truth.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
  if (!image->proof) return outcome;
  outcome.seen = image->proof->seen() == image->proof->total();
  for (auto i = 0; i < 5000 && outcome.seen; ++i) {
    outcome.proved = image->proof->proved();
    outcome.refuted = !image->proof->check();
    if (outcome.proved || outcome.refuted) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (auto const at : offsets) {
    if (!outcome.refuted || at < step) continue;  // what lies before it may be of a local tarindex
    auto const n = image->source.read_at(at, std::span(out).first(1));
    outcome.refuted = !n && n.error().code == Errc::digest_mismatch;
  }
  return outcome;
}

TEST_CASE("One wrong bit is handed on as good only by forms that say so, and found even there",
          "[image][flipped_bits]") {
  World const world;
  std::mt19937 random(20);
  for (auto const& form : forms()) {
    auto const blob = std::make_shared<Bytes const>(world.*form.blob);
    CAPTURE(form.name, blob->size());
    auto const good = form.open(world, AnySource(Fault{blob}));
    if (!good) FAIL(good.error().message());
    CHECK((good->proof == nullptr) == form.strict);
    Bytes truth(static_cast<std::size_t>(good->source.size()));
    REQUIRE(good->source.read_at(0, truth));

    for (unsigned round = 0; round < 20; ++round) {
      auto const outcome =
          read_all(form, world, {.bytes = blob, .remote = round % 2 == 1}, truth, round);
      REQUIRE_FALSE(outcome.failed);
      REQUIRE_FALSE(outcome.wrong);
      CHECK(outcome.proved != form.strict);
    }

    constexpr unsigned rounds = 1000;
    unsigned found = 0;
    for (unsigned round = 0; round < rounds; ++round) {
      // Nobody reads a gzip header once there is an index.
      auto const bit = 80 + random() % (blob->size() * 8 - 80);
      Fault fault{.bytes = blob, .bit = bit, .remote = round % 50 == 1};
      auto const outcome = read_all(form, world, fault, truth, round);
      CAPTURE(round, bit, outcome.failed, outcome.wrong, outcome.seen);
      REQUIRE_FALSE((form.strict && outcome.wrong));
      REQUIRE_FALSE(outcome.proved);
      // A stream that cannot be decoded fails its reads, and is not read to its end.
      found += outcome.failed || outcome.refuted ? 1 : 0;
      if (outcome.seen) REQUIRE(outcome.refuted);
    }
    CHECK(found == rounds);
  }
}

TEST_CASE("A bit that is wrong now and then is no exception", "[image][flipped_bits]") {
  World const world;
  std::mt19937 random(21);
  for (auto const& form : forms()) {
    auto const blob = std::make_shared<Bytes const>(world.*form.blob);
    auto const good = form.open(world, AnySource(Fault{blob}));
    if (!good) FAIL(good.error().message());
    Bytes truth(static_cast<std::size_t>(good->source.size()));
    REQUIRE(good->source.read_at(0, truth));
    for (unsigned round = 0; round < 100; ++round) {
      auto const from = static_cast<unsigned>(random() % 3);
      Fault const fault{.bytes = blob,
                        .bit = 80 + random() % (blob->size() * 8 - 80),
                        .from = from,
                        .to = from + 1};
      auto const outcome = read_all(form, world, fault, truth, round);
      CAPTURE(form.name, round, fault.bit, from);
      REQUIRE_FALSE((form.strict && outcome.wrong));
      REQUIRE_FALSE((outcome.wrong && outcome.proved));
    }
  }
}

}  // namespace flipped_bits_test
}  // namespace erofs_oci
