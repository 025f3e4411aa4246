// SPDX-License-Identifier: Apache-2.0
#include "image.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/tar_maker.hpp>

namespace simulation {
namespace {

using namespace erofs_oci;

[[noreturn]] void die(std::string const& why) {
  std::fprintf(stderr, "image: %s\n", why.c_str());
  std::exit(2);
}

Bytes any_content(Random& random, std::size_t size) {
  if (random.one_in(4)) {
    Bytes noise(size);
    for (auto& byte : noise) byte = static_cast<std::byte>(random.next());
    return noise;
  }
  return testing::compressible_bytes(size, static_cast<std::uint32_t>(random.next()));
}

Bytes make_tar(Random& random, std::size_t layer) {
  testing::TarMaker tar;
  auto const directory = "layer" + std::to_string(layer);
  tar.dir(directory + "/");
  tar.file(directory + "/always", "so that every layer shows");
  auto const files = random.between(1, 4);
  for (std::uint64_t i = 0; i < files; ++i) {
    auto const most = random.one_in(5) ? 80'000U : 6'000U;
    auto const content = any_content(random, random.between(1, most));
    tar.member({.name = directory + "/file" + std::to_string(i)}, content);
  }
  if (layer > 0 && random.one_in(2)) tar.file("layer0/.wh.file0");
  if (random.one_in(2)) tar.symlink(directory + "/link", "file0");
  return tar.end().bytes();
}

Bytes compress(Random& random, Bytes const& tar) {
  Bytes blob;
  auto rest = std::span(tar);
  auto members = random.one_in(2) ? 1 : random.between(2, 4);
  for (; members > 0; --members) {
    auto const n = members == 1 ? rest.size() : random.below(rest.size() + 1);
    auto const member =
        testing::gzip_member({.content = to_bytes(rest.first(n)),
                              .level = static_cast<int>(random.below(10)),
                              .flush_every = random.one_in(2) ? 0 : random.between(5'000, 40'000)});
    blob.insert(blob.end(), member.begin(), member.end());
    rest = rest.subspan(n);
  }
  return blob;
}

Descriptor describe_bytes(std::span<std::byte const> bytes, std::string_view type) {
  Descriptor descriptor;
  descriptor.media_type = type;
  descriptor.digest = digest_of(bytes);
  descriptor.size = bytes.size();
  return descriptor;
}

// The device as the product puts it together from memory; its data must be the tars.
void make_device(SimulatedImage& image, std::vector<Bytes> const& tars) {
  std::vector<ImageLayer> layers;
  for (auto const& layer : image.layers) {
    layers.push_back({layer.descriptor, AnySource(Memory(layer.blob))});
  }
  auto const indexes = index_layers(layers, {.span_size = image.span_size, .parallel = 1});
  if (!indexes) die(indexes.error().message());
  auto const opened = open_layers(std::move(layers), *indexes);
  if (!opened) die(opened.error().message());
  image.device.resize(static_cast<std::size_t>(opened->metadata_size));
  if (auto const ok = read_exact(opened->metadata, 0, image.device); !ok) die(ok.error().message());
  for (std::size_t i = 0; i < tars.size(); ++i) {
    image.layers[i].begin = image.device.size();
    image.device.insert(image.device.end(), tars[i].begin(), tars[i].end());
    image.layers[i].end = image.device.size();
    auto const page = static_cast<std::size_t>(erofs::page_size);
    image.device.resize((image.device.size() + page - 1) / page * page);
  }
  Bytes read(image.device.size());
  auto const n = opened->device.source.read_at(0, read);
  if (opened->device.source.size() != image.device.size() || !n || read != image.device) {
    die("its device is not its metadata and tars");
  }
}

}  // namespace

SimulatedImage make_image(Random random) {
  SimulatedImage image;
  image.span_size = std::uint64_t{64 * 1024} << random.below(2);
  std::vector<Bytes> tars;
  Manifest manifest;
  auto const count = std::min(random.between(1, 4), random.between(1, 4));
  for (std::size_t i = 0; i < count; ++i) {
    tars.push_back(make_tar(random, i));
    bool const plain = random.one_in(3);
    auto blob = plain ? tars.back() : compress(random, tars.back());
    auto descriptor = describe_bytes(blob, plain ? "application/vnd.oci.image.layer.v1.tar"
                                                 : "application/vnd.oci.image.layer.v1.tar+gzip");
    manifest.layers.push_back(descriptor);
    image.layers.push_back({std::move(descriptor), std::move(blob), plain});
  }
  image.config = to_bytes(std::string_view("{}"));
  image.config_at = describe_bytes(image.config, "application/vnd.oci.image.config.v1+json");
  manifest.media_type = media_type::oci_manifest;
  manifest.config = image.config_at;
  image.manifest = encode(manifest);
  image.manifest_digest = digest_of(as_bytes(image.manifest));
  make_device(image, tars);
  return image;
}

}  // namespace simulation
