// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/manifest.hpp>  // first: proves that the header stands alone

#include <string>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace manifest_test {

std::string const digest_a = "sha256:" + std::string(64, 'a');
std::string const digest_b = "sha256:" + std::string(64, 'b');

std::string descriptor(std::string const& type, std::string const& digest,
                       std::string const& more = "") {
  return R"({"mediaType":")" + type + R"(","digest":")" + digest + R"(","size":7)" + more + "}";
}

std::string const layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", digest_a);
std::string const config = descriptor("application/vnd.oci.image.config.v1+json", digest_b);

std::string manifest_text(std::string const& more = "") {
  return R"({"schemaVersion":2,"config":)" + config + R"(,"layers":[)" + layer + "]" + more + "}";
}

std::string entry(std::string const& platform, std::string const& digest = digest_a,
                  std::string const& more = "") {
  return descriptor(std::string(media_type::oci_manifest), digest,
                    (platform.empty() ? "" : R"(,"platform":)" + platform) + more);
}

std::string platform_json(std::string const& os, std::string const& arch,
                          std::string const& variant = "") {
  return R"({"os":")" + os + R"(","architecture":")" + arch + '"' +
         (variant.empty() ? "" : R"(,"variant":")" + variant + '"') + "}";
}

Index index_of(std::vector<std::string> const& entries) {
  std::string list;
  for (auto const& item : entries) list += (list.empty() ? "" : ",") + item;
  auto const text = R"({"schemaVersion":2,"manifests":[)" + list + "]}";
  auto document = parse_document(as_bytes(text));
  REQUIRE(document.has_value());
  return std::get<Index>(*std::move(document));
}

TEST_CASE("parse_document reads a manifest without a media type as an OCI one", "[oci][manifest]") {
  auto const document = parse_document(as_bytes(manifest_text()));

  REQUIRE(document.has_value());
  auto const& manifest = std::get<Manifest>(*document);
  CHECK(manifest.media_type == media_type::oci_manifest);
  REQUIRE(manifest.layers.size() == 1);
  CHECK(manifest.layers[0].digest.to_string() == digest_a);
  CHECK(manifest.layers[0].size == 7);
  CHECK(layer_format(manifest.layers[0].media_type) == LayerFormat::gzip);
}

TEST_CASE("parse_document takes the server's media type where the text has none",
          "[oci][manifest]") {
  auto const type = std::string(media_type::docker_manifest) + "; charset=utf-8";

  auto const document = parse_document(as_bytes(manifest_text()), type);

  REQUIRE(document.has_value());
  CHECK(std::get<Manifest>(*document).media_type == media_type::docker_manifest);
}

TEST_CASE("A manifest may have 200 layers", "[oci][manifest][error]") {
  auto const with = [](std::size_t count) {
    Manifest manifest;
    manifest.config.digest = Digest::parse(digest_a).value();
    manifest.config.size = 1;
    manifest.layers.resize(count, manifest.config);
    return parse_document(as_bytes(encode(manifest)));
  };
  CHECK(with(max_manifest_layers));
  auto const more = with(max_manifest_layers + 1);
  REQUIRE_FALSE(more);
  CHECK(more.error().context.find("201 entries, at most 200") != std::string::npos);
}

TEST_CASE("parse_document refuses what it must", "[oci][manifest][error]") {
  struct Case {
    std::string text;
    std::string content_type;
    Errc code;
  };
  auto const oci = std::string(media_type::oci_manifest);
  auto const cases = std::vector<Case>{
      {"", "", Errc::corrupt},
      {"[]", "", Errc::corrupt},
      {"{}", "", Errc::corrupt},
      {"{\"layers\":[", "", Errc::corrupt},
      {std::string(1000000, '['), "", Errc::corrupt},
      {R"({"a":)" + std::string(100000, '[') + std::string(100000, ']') + "}", "", Errc::corrupt},
      {"\xff{}", "", Errc::corrupt},
      {R"({"layers":[],"manifests":[]})", "", Errc::corrupt},
      {R"({"layers":{},"config":)" + config + "}", "", Errc::corrupt},
      {R"({"layers":[]})", "", Errc::corrupt},
      {R"({"layers":[7],"config":)" + config + "}", "", Errc::corrupt},
      {R"({"manifests":[{"digest":")" + digest_a + R"(","size":-1}]})", "", Errc::corrupt},
      {R"({"manifests":[{"digest":")" + digest_a + R"(","size":1.5}]})", "", Errc::corrupt},
      {R"({"manifests":[{"digest":")" + digest_a + R"(","size":9223372036854775808}]})", "",
       Errc::corrupt},
      {R"({"manifests":[{"digest":")" + digest_a + R"("}]})", "", Errc::corrupt},
      {R"({"manifests":[{"size":1}]})", "", Errc::invalid_argument},
      {R"({"manifests":[{"size":1,"digest":"sha256:../../etc/passwd"}]})", "",
       Errc::invalid_argument},
      {R"({"manifests":[{"size":1,"digest":"md5:00"}]})", "", Errc::unsupported},
      {manifest_text(R"(,"mediaType":")" + std::string(media_type::oci_index) + '"'), "",
       Errc::corrupt},
      {manifest_text(R"(,"mediaType":7)"), "", Errc::corrupt},
      {manifest_text(R"(,"mediaType":"text/html")"), "", Errc::unsupported},
      {manifest_text(R"(,"mediaType":")" + oci + '"'), std::string(media_type::docker_manifest),
       Errc::mismatch},
      {R"({"schemaVersion":1,"fsLayers":[]})", "", Errc::unsupported},
      {"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws", Errc::unsupported},
      {manifest_text(R"(,"annotations":{"a":1})"), "", Errc::corrupt},
      {manifest_text(R"(,"subject":{})"), "", Errc::invalid_argument},
      {std::string(max_document_size + 1, ' '), "", Errc::unsupported},
  };
  for (auto const& [text, content_type, code] : cases) {
    auto const document = parse_document(as_bytes(text), content_type);

    INFO(text.substr(0, 200));
    REQUIRE_FALSE(document.has_value());
    CHECK(document.error().code == code);
  }
}

TEST_CASE("schema 1 is refused with words that help", "[oci][manifest][error]") {
  auto const document = parse_document(as_bytes(R"({"schemaVersion":1})"));

  REQUIRE_FALSE(document.has_value());
  CHECK_THAT(document.error().message(), Catch::Contains("schema 1"));
}

TEST_CASE("choose_platform prefers the exact variant and falls to lower ones", "[oci][manifest]") {
  auto const index = index_of({entry(platform_json("linux", "arm", "v5"), digest_a),
                               entry(platform_json("linux", "arm", "v6"), digest_b),
                               entry(platform_json("linux", "arm64", "v8"), digest_b),
                               entry(platform_json("linux", "amd64"), digest_a)});
  auto const chosen = [&](char const* text) {
    auto const entry = choose_platform(index, *Platform::parse(text));
    return entry ? entry->platform->to_string() : entry.error().message();
  };

  CHECK(chosen("linux/arm") == "linux/arm/v6");
  CHECK(chosen("linux/arm/v5") == "linux/arm/v5");
  CHECK(chosen("linux/arm64") == "linux/arm64/v8");
  CHECK(chosen("linux/aarch64/v8") == "linux/arm64/v8");
  CHECK(chosen("linux/x86_64") == "linux/amd64");
  CHECK(chosen("linux/amd64/v3") == "linux/amd64");
}

TEST_CASE("choose_platform lists what is there when nothing fits", "[oci][manifest][error]") {
  auto const index =
      index_of({entry(platform_json("linux", "amd64")), entry(platform_json("unknown", "unknown")),
                entry(platform_json("windows", "arm64"))});

  auto const chosen = choose_platform(index, {"linux", "arm64", ""});

  REQUIRE_FALSE(chosen.has_value());
  CHECK(chosen.error().code == Errc::not_found);
  CHECK_THAT(chosen.error().message(),
             Catch::Contains("linux/arm64; it has linux/amd64, windows/"));
  CHECK_THAT(chosen.error().message(), !Catch::Contains("unknown"));
}

TEST_CASE("choose_platform skips attestations and SOCI indexes", "[oci][manifest]") {
  auto const linux_amd64 = platform_json("linux", "amd64");
  auto const index =
      index_of({entry(linux_amd64, digest_a, R"(,"annotations":{"vnd.docker.reference.type":"x"})"),
                entry(linux_amd64, digest_a,
                      R"(,"artifactType":"application/vnd.amazon.soci.index.v2+json")"),
                entry(linux_amd64, digest_b)});

  auto const chosen = choose_platform(index, {"linux", "amd64", ""});

  REQUIRE(chosen.has_value());
  CHECK(chosen->digest.to_string() == digest_b);
}

TEST_CASE("choose_platform takes a single image that names no platform", "[oci][manifest]") {
  CHECK(choose_platform(index_of({entry("")}), {"linux", "amd64", ""}).has_value());
  CHECK_FALSE(choose_platform(index_of({entry(""), entry("")}), {"linux", "amd64", ""}));
  CHECK_FALSE(choose_platform(index_of({}), {"linux", "amd64", ""}));
}

std::string any_text() {
  return *rc::gen::container<std::string>(rc::gen::inRange('\x01', '\x7f'));
}

Descriptor any_descriptor() {
  Descriptor out;
  out.media_type = any_text();
  auto const bytes =
      *rc::gen::container<std::vector<std::uint8_t>>(32, rc::gen::arbitrary<std::uint8_t>());
  out.digest = *Digest::make(DigestAlgorithm::sha256, std::as_bytes(std::span(bytes)));
  out.size = *rc::gen::inRange<std::uint64_t>(0, std::uint64_t{1} << 63);
  out.artifact_type = any_text();
  if (*rc::gen::arbitrary<bool>()) out.platform = Platform{any_text(), any_text(), any_text()};
  if (*rc::gen::arbitrary<bool>()) out.annotations[any_text()] = any_text();
  if (*rc::gen::arbitrary<bool>()) out.urls.push_back(any_text());
  return out;
}

TEST_CASE("Documents survive encoding", "[oci][manifest][property]") {
  rc::prop("for all manifests and indexes, parse(encode(x)) == x", [] {
    Manifest manifest{std::string(media_type::oci_manifest),
                      any_text(),
                      any_descriptor(),
                      {},
                      {},
                      {{any_text(), any_text()}}};
    Index index{std::string(media_type::docker_list), any_text(), {}, any_descriptor(), {}};
    for (auto i = *rc::gen::inRange(0, 4); i > 0; --i) {
      manifest.layers.push_back(any_descriptor());
      index.manifests.push_back(any_descriptor());
    }

    auto const manifest_again = parse_document(as_bytes(encode(manifest)));
    auto const index_again = parse_document(as_bytes(encode(index)));

    RC_ASSERT(manifest_again.has_value());
    RC_ASSERT(std::get<Manifest>(*manifest_again) == manifest);
    RC_ASSERT(index_again.has_value());
    RC_ASSERT(std::get<Index>(*index_again) == index);
  });
}

}  // namespace manifest_test
}  // namespace erofs_oci
