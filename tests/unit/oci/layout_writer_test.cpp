// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/layout_writer.hpp>  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/oci/cosign.hpp>
#include <erofs_oci/oci/fetch_blob.hpp>
#include <erofs_oci/oci/index_artifact.hpp>
#include <erofs_oci/testing/fake_registry.hpp>

namespace erofs_oci {
namespace layout_writer_test {

namespace fs = std::filesystem;
using test::Scratch;
using testing::signing_key;

Platform const amd64{"linux", "amd64", ""};

Descriptor image_of(std::string const& text) {
  Descriptor image;
  image.media_type = media_type::oci_manifest;
  image.digest = digest_of(as_bytes(text));
  image.size = text.size();
  return image;
}

/// Puts an artifact of an image there, with one index.
Descriptor attach(LayoutWriter const& writer, Descriptor const& image, std::string const& index) {
  auto const at = describe_index(as_bytes(index), image.digest);
  REQUIRE(writer.put_blob(at.digest, as_bytes(index)).has_value());
  auto const artifact = writer.attach(make_index_artifact(image, {at}));
  REQUIRE(artifact.has_value());
  return *artifact;
}

TEST_CASE("A layout is made where there is none, and is added to where there is one",
          "[oci][layout_writer]") {
  Scratch const directory;
  auto const one = image_of("one");
  auto const two = image_of("two");
  auto const of_one = attach(*LayoutWriter::open(directory.path()), one, "index 1");
  auto const of_two = attach(*LayoutWriter::open(directory.path()), two, "index 2");

  auto const layout = Layout::open(directory.path());

  REQUIRE(layout.has_value());
  auto const found = layout->referrers(one.digest, index_artifact::type);
  REQUIRE(found.has_value());
  REQUIRE(found->size() == 1);
  CHECK(found->front().digest == of_one.digest);
  CHECK(layout->referrers(two.digest, index_artifact::type)->front().digest == of_two.digest);
  CHECK(layout->referrers(one.digest, "application/x")->empty());
  CHECK(layout->referrers(of_one.digest, index_artifact::type)->empty());
  auto const document = layout->document(of_one.digest.to_string(), of_one.size);
  REQUIRE(document.has_value());
  auto const artifact =
      read_index_artifact(std::get<Manifest>(document->document), of_one.digest, one.digest);
  REQUIRE(artifact.has_value());
  CHECK(to_bytes("index 1") == fetch_blob(*layout, artifact->indexes[0], 100));
  CHECK(fetch_blob(*layout, artifact->indexes[0], 6).error().code == Errc::unsupported);
}

TEST_CASE("The same blob and the same artifact are there once", "[oci][layout_writer]") {
  Scratch const directory;
  auto const writer = *LayoutWriter::open(directory.path());
  auto const digest = digest_of(as_bytes("text"));
  CHECK(writer.put_blob(digest, as_bytes("text")) == BlobPush::uploaded);
  CHECK(writer.put_blob(digest, as_bytes("text")) == BlobPush::was_there);
  auto const image = image_of("one");
  attach(writer, image, "index");
  attach(writer, image, "index");
  CHECK(Layout::open(directory.path())->index().manifests.size() == 1);
  CHECK(writer.put_blob(digest_of(as_bytes("text"), DigestAlgorithm::sha512), as_bytes("text"))
            .error()
            .code == Errc::unsupported);
}

TEST_CASE("A tag leads to what was put under it last", "[oci][layout_writer]") {
  Scratch const directory;
  auto const writer = *LayoutWriter::open(directory.path());
  Manifest manifest;
  manifest.media_type = media_type::oci_manifest;
  for (std::string const text : {"1", "2"}) {
    manifest.annotations["number"] = text;
    REQUIRE(writer.put_manifest("v1", manifest.media_type, encode(manifest)).has_value());
  }
  auto const found = writer.document("v1");
  REQUIRE(found.has_value());
  CHECK(std::get<Manifest>(found->document).annotations.at("number") == "2");
  CHECK(writer.document("v2").error().code == Errc::not_found);
  CHECK(writer.document(digest_of(as_bytes("x")).to_string()).error().code == Errc::not_found);
  fs::remove(directory.path() + "/blobs/sha256/" + found->digest.hex());
  CHECK(writer.document("v1").error().code == Errc::not_found);
}

TEST_CASE("Signatures in a layout are those of a registry", "[oci][layout_writer][cosign]") {
  Scratch const directory;
  auto const writer = *LayoutWriter::open(directory.path());
  auto const at = attach(writer, image_of("one"), "index");
  std::vector const keys{signing_key().public_key()};
  CHECK(is_signed(*Layout::open(directory.path()), at.digest, keys) == false);

  REQUIRE(sign_manifest(writer, "here", at.digest, signing_key()).has_value());

  auto const layout = *Layout::open(directory.path());
  CHECK(is_signed(layout, at.digest, keys) == true);
  CHECK(is_signed(layout, digest_of(as_bytes("other")), keys) == false);
  CHECK(is_signed(layout, at.digest, {}) == false);
}

TEST_CASE("Indexes and signatures beside an image leave it the only one", "[oci][layout_writer]") {
  Scratch const directory;
  auto const writer = *LayoutWriter::open(directory.path());
  Manifest manifest;
  manifest.media_type = media_type::oci_manifest;
  manifest.config.media_type = "application/vnd.oci.image.config.v1+json";
  manifest.config.digest = digest_of(as_bytes("{}"));
  manifest.config.size = 2;
  auto const text = encode(manifest);
  REQUIRE(writer.put_manifest("v1", manifest.media_type, text).has_value());
  auto const at = attach(writer, image_of(text), "index");
  REQUIRE(sign_manifest(writer, "here", at.digest, signing_key()).has_value());

  auto const image = Layout::open(directory.path())->resolve("", amd64);

  REQUIRE(image.has_value());
  CHECK(image->digest == digest_of(as_bytes(text)));
}

TEST_CASE("What is no layout is left alone", "[oci][layout_writer][error]") {
  Scratch const directory;
  CHECK(LayoutWriter::open(directory / "none").error().code ==
        std::errc::no_such_file_or_directory);
  std::ofstream(directory / "oci-layout") << R"({"imageLayoutVersion":"2.0.0"})";
  CHECK(LayoutWriter::open(directory.path()).error().code == Errc::unsupported);
  std::ofstream(directory / "oci-layout") << R"({"imageLayoutVersion":"1.0.0"})";
  std::ofstream(directory / "index.json") << "[]";
  CHECK_FALSE(LayoutWriter::open(directory.path()).has_value());
}

TEST_CASE("No link in a layout leads a writer elsewhere", "[oci][layout_writer][error]") {
  Scratch const directory;
  Scratch const outside;
  SECTION("the directory of blobs") {
    fs::create_directories(outside / "sha256");
    fs::create_directory_symlink(outside.path(), directory / "blobs");
    CHECK_FALSE(LayoutWriter::open(directory.path()).has_value());
    CHECK(fs::is_empty(outside / "sha256"));
  }
  SECTION("a blob") {
    auto const writer = *LayoutWriter::open(directory.path());
    auto const digest = digest_of(as_bytes("text"));
    auto const blob = directory / "blobs/sha256/" + digest.hex();
    fs::create_symlink(outside / "victim", blob);
    CHECK(writer.put_blob(digest, as_bytes("text")) == BlobPush::uploaded);
    CHECK_FALSE(fs::is_symlink(blob));
    CHECK(fs::is_empty(outside.path()));
  }
}

TEST_CASE("A blob that another process has begun and not ended is written anew",
          "[oci][layout_writer]") {
  Scratch const directory;
  auto const writer = *LayoutWriter::open(directory.path());
  auto const digest = digest_of(as_bytes("text"));
  auto const blob = directory / "blobs/sha256/" + digest.hex();
  std::ofstream(blob + ".part") << "te";
  CHECK(writer.put_blob(digest, as_bytes("text")) == BlobPush::uploaded);
  CHECK_FALSE(fs::exists(blob + ".part"));
  CHECK(fs::file_size(blob) == 4);
}

TEST_CASE("What a layout's index names and has not refers to nothing", "[oci][layout_writer]") {
  Scratch const directory;
  auto const writer = *LayoutWriter::open(directory.path());
  auto const image = image_of("one");
  auto const at = attach(writer, image, "index");
  auto const blob = directory / "blobs/sha256/" + at.digest.hex();
  SECTION("gone") {
    fs::remove(blob);
  }
  SECTION("other bytes") {
    std::ofstream(blob) << std::string(at.size, ' ');
  }
  auto const layout = *Layout::open(directory.path());
  CHECK(layout.referrers(image.digest, index_artifact::type)->empty());
}

}  // namespace layout_writer_test
}  // namespace erofs_oci
