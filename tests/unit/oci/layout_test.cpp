// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/layout.hpp>  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/digest/sha256.hpp>

namespace erofs_oci {
namespace layout_test {

namespace fs = std::filesystem;

Platform const amd64{"linux", "amd64", ""};

/// An image layout that a test makes.
class LayoutDirectory {
 public:
  LayoutDirectory() {
    fs::create_directories(directory_ / "blobs/sha256");
    write("oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  }

  void write(std::string const& name, std::string const& text) const {
    std::ofstream(directory_ / name, std::ios::binary) << text;
  }

  Descriptor blob(std::string const& text, std::string_view type) const {
    Descriptor out;
    out.media_type = type;
    out.digest = digest_of(as_bytes(text));
    out.size = text.size();
    write("blobs/sha256/" + out.digest.hex(), text);
    return out;
  }

  Descriptor image(std::string const& layer, std::string const& tag = "") const {
    Manifest manifest;
    manifest.media_type = media_type::oci_manifest;
    manifest.config = blob("{}", "application/vnd.oci.image.config.v1+json");
    manifest.layers = {blob(layer, "application/vnd.oci.image.layer.v1.tar")};
    auto out = blob(encode(manifest), media_type::oci_manifest);
    if (!tag.empty()) out.annotations[Layout::ref_name] = tag;
    return out;
  }

  void index(std::vector<Descriptor> const& entries) const {
    write("index.json", index_text(entries));
  }

  static std::string index_text(std::vector<Descriptor> const& entries) {
    Index index;
    index.media_type = media_type::oci_index;
    index.manifests = entries;
    return encode(index);
  }

  std::string const& path() const { return directory_.path(); }

 private:
  test::Scratch directory_;
};

TEST_CASE("A layout resolves tags, digests and the only image", "[oci][layout]") {
  LayoutDirectory const directory;
  auto const one = directory.image("one", "v1");
  auto const two = directory.image("two", "v2");
  directory.index({one, two});
  auto const layout = Layout::open(directory.path());
  REQUIRE(layout.has_value());

  CHECK(layout->resolve("v2", amd64)->digest == two.digest);
  CHECK(layout->resolve(one.digest.to_string(), amd64)->digest == one.digest);
  CHECK_FALSE(layout->resolve("", amd64).has_value());
  auto const missing = layout->resolve("v3", amd64);
  REQUIRE_FALSE(missing.has_value());
  CHECK(missing.error().code == Errc::not_found);
  CHECK_THAT(missing.error().message(), Catch::Contains("\"v1\", \"v2\""));

  directory.index({one});
  CHECK(Layout::open(directory.path())->resolve("", amd64)->digest == one.digest);
}

TEST_CASE("A layout's blobs are sources of the right size", "[oci][layout]") {
  LayoutDirectory const directory;
  directory.index({directory.image("the layer")});
  auto const layout = *Layout::open(directory.path());
  auto const image = *layout.resolve("", amd64);

  auto const blob = layout.blob(image.manifest.layers[0]);

  REQUIRE(blob.has_value());
  Bytes out(20);
  CHECK(blob->read_at(0, out) == std::size_t{9});
  CHECK(as_text(std::span(out).first(9)) == "the layer");

  auto wrong = image.manifest.layers[0];
  wrong.size += 1;
  CHECK(layout.blob(wrong).error().code == Errc::mismatch);
  wrong.digest = digest_of(as_bytes("not there"));
  CHECK(layout.blob(wrong).error().code == std::errc::no_such_file_or_directory);
}

TEST_CASE("A layout follows a tag through an index to a platform", "[oci][layout]") {
  LayoutDirectory const directory;
  auto arm = directory.image("arm");
  arm.platform = Platform{"linux", "arm64", "v8"};
  auto intel = directory.image("intel");
  intel.platform = Platform{"linux", "amd64", ""};
  auto top = directory.blob(LayoutDirectory::index_text({arm, intel}), media_type::oci_index);
  top.annotations[Layout::ref_name] = "latest";
  directory.index({top});
  auto const layout = *Layout::open(directory.path());

  auto const image = layout.resolve("latest", {"linux", "arm64", ""});

  REQUIRE(image.has_value());
  CHECK(image->digest == arm.digest);
  CHECK(image->top == top.digest);
  CHECK_FALSE(layout.resolve("latest", {"linux", "riscv64", ""}).has_value());
}

TEST_CASE("A layout's manifest must be what its digest names", "[oci][layout][error]") {
  LayoutDirectory const directory;
  auto entry = directory.image("one");
  directory.index({entry});
  auto const layout = *Layout::open(directory.path());
  auto const name = "blobs/sha256/" + entry.digest.hex();

  directory.write(name, std::string(entry.size, ' '));
  CHECK(layout.resolve("", amd64).error().code == Errc::digest_mismatch);
  directory.write(name, "short");
  CHECK(layout.resolve("", amd64).error().code == Errc::mismatch);
}

TEST_CASE("What is no layout is refused", "[oci][layout][error]") {
  LayoutDirectory const directory;
  CHECK_FALSE(Layout::open(directory.path()).has_value());  // no index.json
  directory.index({});
  CHECK(Layout::open(directory.path()).has_value());

  directory.write("index.json", R"({"manifests":[{"digest":"sha256:../../x","size":1}]})");
  CHECK_FALSE(Layout::open(directory.path()).has_value());
  directory.index({});
  directory.write("oci-layout", R"({"imageLayoutVersion":"2.0.0"})");
  CHECK(Layout::open(directory.path()).error().code == Errc::unsupported);
  directory.write("oci-layout", "x");
  CHECK_FALSE(Layout::open(directory.path()).has_value());
  CHECK_FALSE(Layout::open("/nonexistent").has_value());
}

}  // namespace layout_test
}  // namespace erofs_oci
