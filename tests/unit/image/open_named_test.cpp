// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/open_named.hpp>  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <catch.hpp>
#include <input_tar.hpp>
#include <scratch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/digest/source_digest.hpp>
#include <erofs_oci/oci/layout_writer.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/fake_registry.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>

namespace erofs_oci {
namespace open_named_test {

namespace fs = std::filesystem;
using testing::FakeRegistry;

/// An image of three layers, and the bytes of its configuration and its layers.
struct Made {
  Manifest manifest{};
  std::vector<Bytes> blobs{};

  Made() {
    manifest.media_type = media_type::oci_manifest;
    manifest.config = add("application/vnd.oci.image.config.v1+json", to_bytes(as_bytes("{}")));
    for (auto const* const name : {"L0", "L1", "L2"}) {
      manifest.layers.push_back(add("application/vnd.oci.image.layer.v1.tar+gzip",
                                    testing::gzip_member({input_tar(name), 6})));
    }
  }

  /// The digest of the device that its first layers make.
  [[nodiscard]] Digest device(std::size_t count) const {
    std::vector<ImageLayer> layers;
    for (std::size_t i = 0; i < count; ++i) {
      layers.push_back({manifest.layers[i], AnySource(Memory(blobs[i + 1]))});
    }
    auto const indexes = index_layers(layers).value();
    auto const opened = open_layers(std::move(layers), indexes).value();
    return digest_of_source(opened.device.source).value();
  }

 private:
  Descriptor add(char const* type, Bytes bytes) {
    blobs.push_back(std::move(bytes));
    return descriptor_of(type, blobs.back());
  }
};

NamedImageOptions first(std::optional<std::uint32_t> count) {
  NamedImageOptions options;
  options.layers.first = count;
  return options;
}

Result<Digest> open(std::string const& name, NamedImageOptions const& options = {},
                    FakeRegistry const& registry = FakeRegistry()) {
  EROFS_OCI_TRY_ASSIGN(auto const image, open_named(name, options, registry.transport()));
  return digest_of_source(image.device.source);
}

TEST_CASE("An image of a layout is opened, or its first layers", "[image][open_named]") {
  Made const made;
  test::Scratch const scratch;
  fs::create_directory(scratch / "layout");
  auto const layout = LayoutWriter::open(scratch / "layout").value();
  for (auto const& blob : made.blobs) REQUIRE(layout.put_blob(digest_of(blob), blob).has_value());
  REQUIRE(layout.put_manifest("v1", made.manifest.media_type, encode(made.manifest)).has_value());
  auto const name = "oci:" + scratch / "layout:v1";

  CHECK(open(name).value() == made.device(3));
  CHECK(open(name, first(1)).value() == made.device(1));
  CHECK(open(name, first(2)).value() == made.device(2));
  CHECK(open(name, first(4)).error().code == Errc::invalid_argument);
  CHECK(open("oci:" + scratch / "layout:v2").error().code == Errc::not_found);
}

TEST_CASE("An image of a registry is opened, and indexed once with a store",
          "[image][open_named]") {
  Made const made;
  FakeRegistry const registry;
  for (auto const& blob : made.blobs) registry.add_blob("app", as_text(blob));
  registry.add_manifest("app", "v1", encode(made.manifest));
  test::Scratch const scratch;
  auto options = first(2);
  options.store = scratch / "store";
  std::size_t indexed = 0;
  options.index.parallel = 1;
  options.index.progress = [&](LayerProgress const& at) { indexed += at.done == at.total; };

  CHECK(open("registry.example/app:v1", options, registry).value() == made.device(2));
  CHECK(indexed >= 2);
  indexed = 0;
  CHECK(open("registry.example/app:v1", options, registry).value() == made.device(2));
  CHECK(indexed == 0);
  CHECK(fs::exists(scratch / "store/read"));
}

TEST_CASE("A file is an image, in which no layer can be chosen", "[image][open_named]") {
  Made const made;
  test::Scratch const scratch;
  auto const path = scratch / "layer";
  std::ofstream(path, std::ios::binary) << as_text(made.blobs[1]);

  CHECK(open(path).value() == made.device(1));
  CHECK(open(path, first(1)).error().code == Errc::invalid_argument);
}

}  // namespace open_named_test
}  // namespace erofs_oci
