// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/soci_layer.hpp>  // first: proves that the header stands alone

#include <map>
#include <string>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/ztoc_maker.hpp>

#include "input_tar.hpp"

namespace erofs_oci {
namespace soci_layer_test {

Descriptor descriptor_of(Bytes const& blob) {
  Descriptor descriptor;
  descriptor.digest = digest_of(blob);
  descriptor.size = blob.size();
  descriptor.media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
  return descriptor;
}

std::map<std::string, std::string> files_of(AnySource const& device) {
  std::map<std::string, std::string> files;
  auto const reader = erofs::Reader<Ref<AnySource>>::open(Ref(device));
  REQUIRE(reader.has_value());
  auto const visit = [&](erofs::Visit const& at) {
    if (at.error != nullptr) FAIL(at.path + ": " + at.error->message());
    Bytes content(at.inode->is_regular() ? static_cast<std::size_t>(at.inode->size()) : 0);
    if (!content.empty()) REQUIRE(reader->read(*at.inode, 0, content).has_value());
    files[at.path] = digest_of(content).hex();
    return erofs::Step::enter;
  };
  REQUIRE(erofs::walk(*reader, visit).has_value());
  return files;
}

Result<MergedImage> open_one(Bytes const& blob, Result<tarindex::BuiltLayer> built) {
  if (!built) return fail(built.error());
  std::vector<StoredLayer> indexes;
  auto opened = opened_layer(*std::move(built));
  if (!opened) return fail(opened.error());
  indexes.push_back(*std::move(opened));
  std::vector<ImageLayer> layers;
  layers.push_back({descriptor_of(blob), AnySource(Memory(blob))});
  return open_layers(std::move(layers), indexes);
}

Ztoc ztoc_of(Bytes const& tar, testing::GzipBlob const& made) {
  auto ztoc = testing::gzip_ztoc(made.blob, tar.size(), made.index(), 4 << 20);
  ztoc.files = testing::ztoc_files(tar);
  return ztoc;
}

TEST_CASE("A layer mounts by its ztoc as by our own index", "[image][soci_layer]") {
  auto const tar = input_tar(GENERATE("basic", "pax", "L1"));
  auto const made = testing::gzip_blob({{tar, 6, 0, 20000}}).spaced(40000);
  REQUIRE(made.checkpoints.size() > 1);

  auto const by_ztoc =
      open_one(made.blob, soci_layer(ztoc_of(tar, made), descriptor_of(made.blob)));
  auto const by_us = open_one(made.blob, tarindex::build_layer(Memory(made.blob)));

  if (!by_ztoc) FAIL(by_ztoc.error().message());
  REQUIRE(by_us.has_value());
  CHECK(files_of(by_ztoc->device.source) == files_of(by_us->device.source));
}

TEST_CASE("Its bytes are checked against the ztoc's digests", "[image][soci_layer][error]") {
  auto const tar = input_tar("basic");
  auto const made = testing::gzip_blob({{tar, 6, 0, 20000}}).spaced(40000);
  auto bad = made.blob;
  bad[bad.size() / 2] ^= std::byte{1};

  auto const image = open_one(bad, soci_layer(ztoc_of(tar, made), descriptor_of(bad)));

  REQUIRE(image.has_value());
  Bytes out(static_cast<std::size_t>(image->device.source.size() - image->metadata_size));
  auto const n = image->device.source.read_at(image->metadata_size, out);
  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::digest_mismatch);
}

TEST_CASE("A ztoc of another layer is refused", "[image][soci_layer][error]") {
  auto const tar = input_tar("basic");
  auto const made = testing::gzip_blob({{tar, 6}});
  auto descriptor = descriptor_of(made.blob);
  descriptor.size += 1;
  CHECK_FALSE(soci_layer(ztoc_of(tar, made), descriptor).has_value());
}

}  // namespace soci_layer_test
}  // namespace erofs_oci
