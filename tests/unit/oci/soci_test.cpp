// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/soci.hpp>  // first: proves that the header stands alone

#include <map>
#include <string>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/testing/fake_transport.hpp>

namespace erofs_oci {
namespace soci_test {

using testing::FakeReply;
using testing::FakeTransport;
using FakeRegistry = BasicRegistry<FakeTransport>;

Descriptor describe(std::string const& text, std::string_view type) {
  Descriptor out;
  out.media_type = type;
  out.digest = digest_of(as_bytes(text));
  out.size = text.size();
  return out;
}

/// Paths below /v2/n/m/ and what is there.
using Files = std::map<std::string, std::string>;

FakeTransport serve(Files content) {
  return FakeTransport([content = std::move(content)](HttpRequest const& request, std::size_t) {
    auto const prefix = std::string("/v2/n/m/");
    REQUIRE(request.url.target.starts_with(prefix));
    auto const found = content.find(request.url.target.substr(prefix.size()));
    if (found == content.end()) return FakeReply{404};
    return testing::serve(request, as_bytes(found->second));
  });
}

FakeRegistry registry(FakeTransport const& transport) {
  return *FakeRegistry::make(*Reference::parse("r.x/n/m:v1"), {}, transport);
}

auto const layer = digest_of(as_bytes("layer"));
std::string const ztoc_text(5000, 'z');

/// How a manifest says what it is.
enum class Says { artifact_type, config_type, nothing };

std::string soci_text(Says says, std::string_view type, std::optional<Digest> subject) {
  Manifest manifest;
  manifest.media_type = media_type::oci_manifest;
  manifest.config = describe("{}", "application/vnd.oci.empty.v1+json");
  if (says == Says::artifact_type) manifest.artifact_type = type;
  if (says == Says::config_type) manifest.config.media_type = type;
  manifest.layers = {describe("note", "text/plain"),
                     describe(ztoc_text, "application/octet-stream")};
  manifest.layers[1].annotations[soci_annotation::layer_digest] = layer.to_string();
  if (subject) {
    manifest.subject = describe("", media_type::oci_manifest);
    manifest.subject->digest = *subject;
  }
  return encode(manifest);
}

std::string index_of(std::vector<std::pair<std::string, std::string>> const& entries) {
  Index index;
  index.media_type = media_type::oci_index;
  for (auto const& [text, artifact_type] : entries) {
    index.manifests.push_back(describe(text, media_type::oci_manifest));
    index.manifests.back().artifact_type = artifact_type;
  }
  return encode(index);
}

std::string by_digest(std::string const& text) {
  return "manifests/" + digest_of(as_bytes(text)).to_string();
}

Image const image{digest_of(as_bytes("image")), {}, {}, {}};
std::string const api = "referrers/" + image.digest.to_string();
std::string const tag = "manifests/sha256-" + image.digest.hex();
std::string const v1 = soci_text(Says::artifact_type, media_type::soci_v1, image.digest);

void check_found(Result<std::optional<SociIndex>> const& found, std::string const& text,
                 SociBinding binding) {
  if (!found) FAIL(found.error().message());
  REQUIRE(found->has_value());
  auto const& index = **found;
  CHECK(index.digest == digest_of(as_bytes(text)));
  CHECK(index.binding == binding);
  REQUIRE(index.ztocs.size() == 1);
  REQUIRE(index.ztoc_of(layer) != nullptr);
  CHECK(index.ztoc_of(layer)->digest == digest_of(as_bytes(ztoc_text)));
  CHECK(index.ztoc_of(image.digest) == nullptr);
}

TEST_CASE("A SOCI index is found through the referrers API", "[oci][soci]") {
  auto const transport = serve({{api, index_of({{"signature", "application/vnd.example+json"},
                                                {v1, std::string(media_type::soci_v1)}})},
                                {by_digest(v1), v1}});

  check_found(find_soci_index(registry(transport), image), v1, SociBinding::by_referrer);
  CHECK(transport.requests().size() == 2);
}

TEST_CASE("A SOCI index is found through the tag that stands in for the API", "[oci][soci]") {
  auto const transport =
      serve({{tag, index_of({{v1, std::string(media_type::soci_v1)}})}, {by_digest(v1), v1}});

  check_found(find_soci_index(registry(transport), image), v1, SociBinding::by_referrer);
  CHECK(transport.requests().size() == 3);
}

TEST_CASE("A SOCI index may be known by its config's type alone", "[oci][soci]") {
  auto const by_config = soci_text(Says::config_type, media_type::soci_v1, image.digest);
  auto const other = soci_text(Says::nothing, "", image.digest);

  check_found(find_soci_index(registry(serve({{tag, index_of({{other, ""}, {by_config, ""}})},
                                              {by_digest(other), other},
                                              {by_digest(by_config), by_config}})),
                              image),
              by_config, SociBinding::by_referrer);
}

TEST_CASE("A SOCI index that the manifest names is bound by its digest", "[oci][soci]") {
  for (auto const says : {Says::artifact_type, Says::config_type}) {
    auto const v2 = soci_text(says, media_type::soci_v2, std::nullopt);
    auto named = image;
    named.manifest.annotations[soci_annotation::index_digest] = digest_of(as_bytes(v2)).to_string();
    // what refers to the image does not count
    auto const transport = serve({{by_digest(v2), v2},
                                  {api, index_of({{v1, std::string(media_type::soci_v1)}})},
                                  {by_digest(v1), v1}});

    check_found(find_soci_index(registry(transport), named), v2, SociBinding::by_digest);
    CHECK(transport.requests().size() == 1);
  }
}

TEST_CASE("No SOCI index is no error", "[oci][soci]") {
  auto const other_subject = soci_text(Says::artifact_type, media_type::soci_v1, layer);
  auto const v2 = soci_text(Says::artifact_type, media_type::soci_v2, image.digest);
  auto const type = std::string(media_type::soci_v1);
  for (auto const& files : std::vector<Files>{
           {},
           {{api, index_of({})}},
           {{api, index_of({{v1, "application/vnd.example+json"}})}, {by_digest(v1), v1}},
           {{api, index_of({{v1, type}})}},
           {{api, index_of({{v1, type}})}, {by_digest(v1), v1 + " "}},
           {{api, index_of({{other_subject, type}})}, {by_digest(other_subject), other_subject}},
           {{api, index_of({{v2, type}})}, {by_digest(v2), v2}},
       }) {
    auto const found = find_soci_index(registry(serve(files)), image);
    if (!found) FAIL(found.error().message());
    CHECK_FALSE(found->has_value());
  }
}

TEST_CASE("A referrer that cannot be read gives way to the next", "[oci][soci]") {
  auto const type = std::string(media_type::soci_v1);
  auto const broken = soci_text(Says::nothing, "", image.digest);

  check_found(
      find_soci_index(registry(serve({{api, index_of({{"gone", type}, {broken, type}, {v1, type}})},
                                      {by_digest(broken), broken},
                                      {by_digest(v1), v1}})),
                      image),
      v1, SociBinding::by_referrer);
}

TEST_CASE("Not more than a few of those that say nothing are asked", "[oci][soci]") {
  std::vector<std::pair<std::string, std::string>> entries;
  for (int i = 0; i < 100; ++i) entries.emplace_back("nothing " + std::to_string(i), "");
  auto const transport = serve({{api, index_of(entries)}});

  CHECK_FALSE(find_soci_index(registry(transport), image)->has_value());
  CHECK(transport.requests().size() == 9);

  entries.emplace_back(v1, media_type::soci_v1);
  check_found(
      find_soci_index(registry(serve({{api, index_of(entries)}, {by_digest(v1), v1}})), image), v1,
      SociBinding::by_referrer);
}

TEST_CASE("A SOCI index that is named but wrong is an error", "[oci][soci][error]") {
  auto const find = [](std::string const& annotation, Files const& files) {
    auto named = image;
    named.manifest.annotations[soci_annotation::index_digest] = annotation;
    return find_soci_index(registry(serve(files)), named);
  };
  auto const v2 = soci_text(Says::artifact_type, media_type::soci_v2, std::nullopt);
  auto const name = digest_of(as_bytes(v2)).to_string();
  auto const list = index_of({});

  CHECK(find("sha256:12", {}).error().code == Errc::invalid_argument);
  CHECK(find("../../secret", {}).error().code == Errc::invalid_argument);
  CHECK(find(name, {}).error().code == Errc::not_found);
  CHECK(find(name, {{by_digest(v2), v2 + " "}}).error().code == Errc::digest_mismatch);
  CHECK(find(digest_of(as_bytes(v1)).to_string(), {{by_digest(v1), v1}}).error().code ==
        Errc::mismatch);
  CHECK(find(digest_of(as_bytes(list)).to_string(), {{by_digest(list), list}}).error().code ==
        Errc::mismatch);
}

TEST_CASE("A registry in trouble is an error, not an image without an index",
          "[oci][soci][error]") {
  auto const type = std::string(media_type::soci_v1);
  auto const transport = FakeTransport([&](HttpRequest const& request, std::size_t) {
    if (request.url.target.ends_with(api)) {
      return FakeReply{200, {}, to_bytes(index_of({{v1, type}}))};
    }
    return FakeReply{503};
  });

  auto const found = find_soci_index(registry(transport), image);

  REQUIRE_FALSE(found.has_value());
  CHECK(is_transient(found.error()));
}

Descriptor const ztoc = describe(ztoc_text, "application/octet-stream");
std::string const ztoc_path = "blobs/" + ztoc.digest.to_string();

TEST_CASE("A ztoc is fetched in one request and checked", "[oci][soci]") {
  auto const transport = serve({{ztoc_path, ztoc_text}});

  CHECK(fetch_ztoc(registry(transport), ztoc) == to_bytes(ztoc_text));
  CHECK(transport.requests().size() == 1);

  auto sha512 = ztoc;
  sha512.digest = digest_of(as_bytes(ztoc_text), DigestAlgorithm::sha512);
  CHECK(fetch_ztoc(registry(serve({{"blobs/" + sha512.digest.to_string(), ztoc_text}})), sha512) ==
        to_bytes(ztoc_text));
}

TEST_CASE("A ztoc that is not what its descriptor says is refused", "[oci][soci][error]") {
  auto changed = ztoc_text;
  changed[4000] ^= 1;

  CHECK(fetch_ztoc(registry(serve({{ztoc_path, changed}})), ztoc).error().code ==
        Errc::digest_mismatch);
  CHECK_FALSE(fetch_ztoc(registry(serve({{ztoc_path, ztoc_text + "z"}})), ztoc).has_value());
  CHECK_FALSE(fetch_ztoc(registry(serve({{ztoc_path, ztoc_text.substr(1)}})), ztoc).has_value());
  CHECK(fetch_ztoc(registry(serve({})), ztoc).error().code == Errc::not_found);
}

TEST_CASE("A ztoc that is too large is not asked for", "[oci][soci][error]") {
  auto const transport = serve({{ztoc_path, ztoc_text}});

  CHECK(fetch_ztoc(registry(transport), ztoc, 4999).error().code == Errc::unsupported);
  CHECK(transport.requests().empty());
  CHECK(fetch_ztoc(registry(transport), ztoc, 5000).has_value());

  auto huge = ztoc;
  huge.size = 1ULL << 62;
  CHECK(fetch_ztoc(registry(transport), huge).error().code == Errc::unsupported);
}

}  // namespace soci_test
}  // namespace erofs_oci
