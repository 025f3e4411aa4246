// SPDX-License-Identifier: Apache-2.0
// SOCI indexes in Debian's docker-registry, which has no referrers API: pushed by curl, found, and
// used to read a layer that is never read as a whole.
#include <string>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/combinator/verified.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/gzip/scanner.hpp>
#include <erofs_oci/http/registry.hpp>
#include <erofs_oci/oci/soci.hpp>
#include <erofs_oci/tarindex/ztoc_layer.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/tar_maker.hpp>
#include <erofs_oci/testing/ztoc_maker.hpp>

#include "support.hpp"

namespace erofs_oci {
namespace soci_test {

/// Text that does not compress to nothing.
std::string noise(std::size_t size) {
  std::string text(size, '\0');
  std::uint32_t x = 1;
  for (auto& c : text) c = static_cast<char>('a' + ((x = x * 1664525U + 1013904223U) >> 28));
  return text;
}

std::string const big = noise(1'500'000);

/// A layer of several spans.
testing::GzipBlob make_layer() {
  auto const tar = testing::TarMaker()
                       .dir("d/")
                       .file("d/first", "first")
                       .file("d/big", big)
                       .file("d/last", "last")
                       .symlink("s", "d/last")
                       .end()
                       .bytes();
  return testing::gzip_blob({{.content = tar, .flush_every = 100'000}}).spaced(400'000);
}

/// Pushes by the registry's own protocol.
class Pusher {
 public:
  Pusher(test::Scratch const& directory, std::string const& host)
      : base_("http://" + host + "/v2/n/m/"), path_(directory / "push") {}

  Descriptor blob(std::string const& content, std::string_view type) const {
    auto const out = describe(content, type);
    auto const start = "location=$(curl -fsS -o /dev/null -X POST -w '%header{location}' " + base_ +
                       "blobs/uploads/)";
    REQUIRE(run(start + "; curl -fsS -X PUT --data-binary @" + path_ +
                " -H 'Content-Type: application/octet-stream' \"$location&digest=" +
                out.digest.to_string() + "\""));
    return out;
  }

  /// @param tag  empty: by its digest
  Descriptor manifest(std::string const& text, std::string_view type, std::string tag = {}) const {
    auto const out = describe(text, type);
    if (tag.empty()) tag = out.digest.to_string();
    REQUIRE(run("curl -fsS -X PUT --data-binary @" + path_ +
                " -H 'Content-Type: " + std::string(type) + "' " + base_ + "manifests/" + tag));
    return out;
  }

 private:
  Descriptor describe(std::string const& content, std::string_view type) const {
    write_text(path_, content);
    Descriptor out;
    out.media_type = type;
    out.digest = digest_of(as_bytes(content));
    out.size = content.size();
    return out;
  }

  std::string base_;
  std::string path_;
};

/// An image with one layer and a ztoc for it, in the registry.
struct PushedImage {
  PushedImage(test::Scratch const& directory, DockerRegistry const& server)
      : pusher(directory, server.host()) {
    config = pusher.blob("{}", "application/vnd.oci.image.config.v1+json");
    layer =
        pusher.blob(std::string(as_text(made.blob)), "application/vnd.oci.image.layer.v1.tar+gzip");
    auto listed = testing::gzip_ztoc(made.blob, made.content.size(), made.index(), 400'000);
    listed.files = testing::ztoc_files(made.content);
    ztoc =
        pusher.blob(std::string(as_text(testing::encode_ztoc(listed))), "application/octet-stream");
    ztoc.annotations[soci_annotation::layer_digest] = layer.digest.to_string();
  }

  Manifest image() const {
    Manifest manifest;
    manifest.media_type = media_type::oci_manifest;
    manifest.config = config;
    manifest.layers = {layer};
    return manifest;
  }

  Manifest soci(std::string_view type) const {
    Manifest manifest;
    manifest.media_type = media_type::oci_manifest;
    manifest.config = config;
    manifest.config.media_type = type;
    manifest.layers = {ztoc};
    return manifest;
  }

  Pusher pusher;
  testing::GzipBlob made = make_layer();
  Descriptor config;
  Descriptor layer;
  Descriptor ztoc;
};

RegistryOptions plain() {
  RegistryOptions options;
  options.protocol = RegistryProtocol::http;
  return options;
}

/// Reads one file of the layer through the ztoc alone.
void check_reads(Registry const& registry, SociIndex const& index, PushedImage const& pushed) {
  auto const* const descriptor = index.ztoc_of(pushed.layer.digest);
  REQUIRE(descriptor != nullptr);
  auto const bytes = fetch_ztoc(registry, *descriptor);
  if (!bytes) FAIL(bytes.error().message());
  auto const ztoc = parse_ztoc(*bytes);
  REQUIRE(ztoc.has_value());
  auto spans = ztoc_spans(*ztoc, pushed.layer.size);
  REQUIRE(spans.has_value());
  REQUIRE(spans->chunks.size() > 2);
  auto const tree = tarindex::ztoc_layer(*ztoc);
  REQUIRE(tree.has_value());
  auto const& files = tree->tree;
  auto const d = files.find(erofs::root_id, "d");
  REQUIRE(d != nullptr);
  auto const& file = *files[*files.find(*d, "last")].regular();

  auto checked = Verified<Registry::Blob, Sha256>::make(registry.blob(pushed.layer), spans->chunks);
  REQUIRE(checked.has_value());
  auto const data = Gzran<Verified<Registry::Blob, Sha256>>::make(
      *std::move(checked), std::move(spans->index), {.size = spans->decoded_size});
  if (!data) FAIL(data.error().message());
  Bytes out(static_cast<std::size_t>(file.size));
  REQUIRE(read_exact(*data, file.extents[0].device_offset, out));
  CHECK(as_text(out) == "last");
  CHECK(data->stats().fetched_bytes < pushed.made.blob.size() / 2);
  Bytes all(static_cast<std::size_t>(data->size()));
  REQUIRE(read_exact(*data, 0, all));
  CHECK(all == pushed.made.content);
}

bool curl_there() {
  auto const there = run("command -v docker-registry && command -v curl");
  if (!there) WARN("skipped: docker-registry or curl is missing");
  return there;
}

TEST_CASE("docker-registry: a SOCI index behind the fallback tag", "[oci][soci][integration]") {
  if (!curl_there()) return;
  test::Scratch const directory;
  DockerRegistry const server(directory);
  PushedImage const pushed(directory, server);
  auto const image = pushed.pusher.manifest(encode(pushed.image()), media_type::oci_manifest, "v1");
  auto const registry = *Registry::make(*Reference::parse(server.host() + "/n/m:v1"), plain());
  auto const resolved = registry.resolve({"linux", "amd64", ""});
  REQUIRE(resolved.has_value());
  auto const none = find_soci_index(registry, *resolved);
  REQUIRE(none.has_value());
  CHECK_FALSE(none->has_value());

  auto soci = pushed.soci(media_type::soci_v1);
  soci.subject = image;
  auto entry = pushed.pusher.manifest(encode(soci), media_type::oci_manifest);
  entry.artifact_type = media_type::soci_v1;
  Index tag;
  tag.media_type = media_type::oci_index;
  tag.manifests = {entry};
  (void)pushed.pusher.manifest(encode(tag), media_type::oci_index, "sha256-" + image.digest.hex());

  auto const found = find_soci_index(registry, *resolved);

  if (!found) FAIL(found.error().message());
  REQUIRE(found->has_value());
  CHECK((*found)->digest == entry.digest);
  CHECK((*found)->binding == SociBinding::by_referrer);
  check_reads(registry, **found, pushed);
}

TEST_CASE("docker-registry: a SOCI index that the image names", "[oci][soci][integration]") {
  if (!curl_there()) return;
  test::Scratch const directory;
  DockerRegistry const server(directory);
  PushedImage const pushed(directory, server);
  auto const soci =
      pushed.pusher.manifest(encode(pushed.soci(media_type::soci_v2)), media_type::oci_manifest);
  auto manifest = pushed.image();
  manifest.annotations[soci_annotation::index_digest] = soci.digest.to_string();
  (void)pushed.pusher.manifest(encode(manifest), media_type::oci_manifest, "v1");
  auto const registry = *Registry::make(*Reference::parse(server.host() + "/n/m:v1"), plain());
  auto const resolved = registry.resolve({"linux", "amd64", ""});
  REQUIRE(resolved.has_value());

  auto const found = find_soci_index(registry, *resolved);

  if (!found) FAIL(found.error().message());
  REQUIRE(found->has_value());
  CHECK((*found)->binding == SociBinding::by_digest);
  check_reads(registry, **found, pushed);
}

}  // namespace soci_test
}  // namespace erofs_oci
