// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/registry.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/oci/encoding.hpp>
#include <erofs_oci/testing/fake_registry.hpp>
#include <erofs_oci/testing/fake_transport.hpp>

namespace erofs_oci {
namespace registry_test {

using testing::FakeReply;
using testing::FakeTransport;
using testing::header_of;
using FakeRegistry = BasicRegistry<FakeTransport>;

static_assert(RandomAccessSource<FakeRegistry::Blob>);

Platform const amd64{"linux", "amd64", ""};

Descriptor describe(std::string const& text, std::string_view type) {
  Descriptor out;
  out.media_type = type;
  out.digest = digest_of(as_bytes(text));
  out.size = text.size();
  return out;
}

std::string const manifest_text = [] {
  Manifest manifest;
  manifest.media_type = media_type::oci_manifest;
  manifest.config = describe("{}", "application/vnd.oci.image.config.v1+json");
  manifest.layers = {describe("layer", "application/vnd.oci.image.layer.v1.tar+gzip")};
  return encode(manifest);
}();

std::string index_text(std::vector<Descriptor> const& entries) {
  Index index;
  index.media_type = media_type::oci_index;
  index.manifests = entries;
  return encode(index);
}

std::string const whole_index = [] {
  auto entry = describe(manifest_text, media_type::oci_manifest);
  entry.platform = Platform{"linux", "amd64", ""};
  return index_text({entry});
}();

/// Paths below /v2/n/m/ and what is there.
using Files = std::map<std::string, std::string>;

FakeTransport files(Files content, HttpHeaders const& headers = {}) {
  return FakeTransport([=](HttpRequest const& request, std::size_t) {
    auto const prefix = std::string("/v2/n/m/");
    REQUIRE(request.url.target.starts_with(prefix));
    auto const found = content.find(request.url.target.substr(prefix.size()));
    if (found == content.end()) return FakeReply{404};
    return FakeReply{200, headers, to_bytes(found->second)};
  });
}

FakeRegistry registry(std::string const& reference, FakeTransport const& transport,
                      RegistryOptions options = {}) {
  return *FakeRegistry::make(*Reference::parse(reference), std::move(options), transport);
}

std::string by_digest(std::string const& text) {
  return "manifests/" + digest_of(as_bytes(text)).to_string();
}

TEST_CASE("A tag that names a manifest is one request", "[oci][registry]") {
  auto const transport = files({{"manifests/v1", manifest_text}});

  auto const image = registry("r.x/n/m:v1", transport).resolve(amd64);

  REQUIRE(image.has_value());
  CHECK(image->digest == digest_of(as_bytes(manifest_text)));
  CHECK(image->top == image->digest);
  REQUIRE(image->manifest.layers.size() == 1);
  auto const requests = transport.requests();
  REQUIRE(requests.size() == 1);
  std::vector<std::string> accepted;
  for (auto const& header : requests[0].headers) {
    if (header.name == "Accept") accepted.push_back(header.value);
  }
  CHECK(accepted.size() == 4);
}

TEST_CASE("A tag that names an index is two requests", "[oci][registry]") {
  auto const transport =
      files({{"manifests/v1", whole_index}, {by_digest(manifest_text), manifest_text}});

  auto const image = registry("r.x/n/m:v1", transport).resolve(amd64);

  REQUIRE(image.has_value());
  CHECK(image->digest == digest_of(as_bytes(manifest_text)));
  CHECK(image->top == digest_of(as_bytes(whole_index)));
  CHECK(image->platform == amd64);
  CHECK(transport.requests().size() == 2);
}

TEST_CASE("A manifest that is not what its digest names is refused", "[oci][registry][error]") {
  auto const digest = digest_of(as_bytes(manifest_text)).to_string();
  auto const transport = files({{"manifests/" + digest, manifest_text + " "}});

  auto const image = registry("r.x/n/m@" + digest, transport).resolve(amd64);

  REQUIRE_FALSE(image.has_value());
  CHECK(image.error().code == Errc::digest_mismatch);
}

TEST_CASE("A registry that contradicts its own digest header is refused",
          "[oci][registry][error]") {
  auto const transport = files({{"manifests/v1", manifest_text}},
                               {{"Docker-Content-Digest", "sha256:" + std::string(64, '0')}});

  CHECK(registry("r.x/n/m:v1", transport).resolve(amd64).error().code == Errc::digest_mismatch);
}

TEST_CASE("A sha512 digest is checked as one", "[oci][registry]") {
  auto const digest = digest_of(as_bytes(manifest_text), DigestAlgorithm::sha512).to_string();
  auto const transport = files({{"manifests/" + digest, manifest_text}});

  auto const image = registry("r.x/n/m@" + digest, transport).resolve(amd64);

  REQUIRE(image.has_value());
  CHECK(image->digest.to_string() == digest);
}

TEST_CASE("The error of a tag that is not there says what there is", "[oci][registry][error]") {
  auto const many = [] {
    std::string text = R"({"name":"n/m","tags":["t0")";
    for (int i = 1; i < 11; ++i) text += ",\"t" + std::to_string(i) + "\"";
    return text + "]}";
  }();
  auto const unknown = std::string(
      R"({"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such\nthing","detail":{}}]})");
  struct Case {
    FakeReply tags;
    std::string said;  // whole
  };
  auto const list = [](std::string const& text) { return FakeReply{200, {}, to_bytes(text)}; };
  auto const plain = std::string(
      "https://r.x/v2/n/m/manifests/v1: HTTP status 404 \"MANIFEST_UNKNOWN: no such?thing\": "
      "not found");
  auto const cases = std::vector<Case>{
      {list(R"({"name":"n/m","tags":["v2"]})"), R"(r.x/n/m has no tag "v1"; it has "v2")"},
      {list(R"({"name":"n/m","tags":["a","\u001b[1m"]})"),
       R"(r.x/n/m has no tag "v1"; it has "a", "?[1m")"},
      {list(many),
       "r.x/n/m has no tag \"v1\"; it has \"t0\", \"t1\", \"t2\", \"t3\", \"t4\", "
       "\"t5\", \"t6\", \"t7\", \"t8\", \"t9\" and others"},
      {list(R"({"name":"n/m","tags":null})"), R"(r.x/n/m has no tag "v1"; it has no tags)"},
      {list(R"({"name":"n/m"})"), R"(r.x/n/m has no tag "v1"; it has no tags)"},
      {FakeReply{404}, R"(r.x has no repository "n/m")"},
      // A registry that contradicts itself, or does not tell.
      {list(R"({"name":"n/m","tags":["v1"]})"), plain},
      {list(R"({"tags":[7]})"), plain},
      {list("<html>"), plain},
      {FakeReply{401}, plain},
      {FakeReply{503}, plain},
  };
  for (auto const& [tags, said] : cases) {
    auto const transport = FakeTransport([&](HttpRequest const& request, std::size_t) {
      auto const is_list = request.url.target == "/v2/n/m/tags/list?n=11";
      return is_list ? tags : FakeReply{404, {}, to_bytes(unknown)};
    });

    auto const image = registry("r.x/n/m:v1", transport).resolve(amd64);

    REQUIRE_FALSE(image.has_value());
    CHECK(image.error().code == Errc::not_found);
    CHECK(image.error().message() == said);
    CHECK(transport.requests().size() == 2);
  }
}

TEST_CASE("What a digest names is not looked for among the tags", "[oci][registry][error]") {
  auto const digest = "sha256:" + std::string(64, 'a');
  auto const transport = FakeTransport([](HttpRequest const&, std::size_t) {
    return FakeReply{404, {}, to_bytes(std::string(100'000, ' '))};  // no refusal is so long
  });

  auto const image = registry("r.x/n/m@" + digest, transport).resolve(amd64);

  CHECK(image.error().message() ==
        "https://r.x/v2/n/m/manifests/" + digest + ": HTTP status 404: not found");
  CHECK(transport.requests().size() == 1);
}

TEST_CASE("A refused login is named, without its secrets", "[oci][registry][error]") {
  auto const challenge =
      GENERATE(as<std::string>(), "Basic realm=x", "Bearer realm=\"https://r.x/token\",service=x");
  auto const transport = FakeTransport([&](HttpRequest const&, std::size_t) {
    return FakeReply{401, {{"WWW-Authenticate", challenge}}};
  });
  RegistryOptions options;
  options.credentials = [](auto const&, auto const&) {
    return Result<std::optional<Credentials>>(Credentials{"me", "s3cret", {}, {}, "/the/file"});
  };

  auto const image = registry("r.x/n/m:v1", transport, options).resolve(amd64);

  REQUIRE_FALSE(image.has_value());
  CHECK(image.error().code == Errc::unauthorized);
  CHECK_THAT(image.error().message(), Catch::Contains("user \"me\" from /the/file"));
  CHECK_THAT(image.error().message(), !Catch::Contains("s3cret"));
}

TEST_CASE("Resolving fails clearly", "[oci][registry][error]") {
  auto wrong_size = describe(manifest_text, media_type::oci_manifest);
  wrong_size.platform = amd64;
  wrong_size.size += 1;
  auto const longer = index_text({wrong_size});
  wrong_size.size -= 2;
  auto const shorter = index_text({wrong_size});
  struct Case {
    Files content;
    HttpHeaders headers;
    Errc code;
  };
  auto const cases = std::vector<Case>{
      {{}, {}, Errc::not_found},
      {{{"manifests/v1", whole_index}}, {}, Errc::not_found},
      {{{"manifests/v1", index_text({})}}, {}, Errc::not_found},
      {{{"manifests/v1", longer}, {by_digest(manifest_text), manifest_text}}, {}, Errc::mismatch},
      {{{"manifests/v1", shorter}, {by_digest(manifest_text), manifest_text}}, {}, Errc::mismatch},
      {{{"manifests/v1", "<html>"}}, {}, Errc::corrupt},
      {{{"manifests/v1", std::string(5'000'000, ' ')}}, {}, Errc::unsupported},
      {{{"manifests/v1", manifest_text}}, {{"Content-Encoding", "gzip"}}, Errc::protocol},
      {{{"manifests/v1", manifest_text}},
       {{"Content-Type", std::string(media_type::docker_manifest)}},
       Errc::mismatch},
  };
  for (auto const& [content, headers, code] : cases) {
    auto const image = registry("r.x/n/m:v1", files(content, headers)).resolve(amd64);

    REQUIRE_FALSE(image.has_value());
    INFO(image.error().message());
    CHECK(image.error().code == code);
  }
}

TEST_CASE("Indexes nest four deep and no more", "[oci][registry][error]") {
  for (auto const depth : {4, 5}) {
    Files content;
    auto text = manifest_text;
    content[by_digest(text)] = text;
    for (int i = 0; i < depth; ++i) {
      text =
          index_text({describe(text, i == 0 ? media_type::oci_manifest : media_type::oci_index)});
      content[by_digest(text)] = text;
    }
    content["manifests/v1"] = text;

    auto const image = registry("r.x/n/m:v1", files(content)).resolve(amd64);

    CHECK(image.has_value() == (depth == 4));
  }
}

TEST_CASE("Mirrors answer first, the registry last", "[oci][registry]") {
  auto const transport = FakeTransport([](HttpRequest const& request, std::size_t) {
    if (request.url.host == "mirror") {
      CHECK(request.url.to_string().starts_with("http://mirror:5000/v2/n/m/"));
      return FakeReply{404};
    }
    return FakeReply{200, {}, to_bytes(manifest_text)};
  });
  RegistryOptions options;
  options.mirrors = {*RegistryHost::parse("http://mirror:5000")};
  options.mirrors[0].resolves = false;
  auto const digest = digest_of(as_bytes(manifest_text)).to_string();

  SECTION("for what a digest names") {
    CHECK(registry("r.x/n/m@" + digest, transport, options).resolve(amd64).has_value());
    CHECK(transport.requests().size() == 2);
  }
  SECTION("for a tag only if they are believed") {
    CHECK(registry("r.x/n/m:v1", transport, options).resolve(amd64).has_value());
    CHECK(transport.requests().size() == 1);
    options.mirrors[0].resolves = true;
    CHECK(registry("r.x/n/m:v1", transport, options).resolve(amd64).has_value());
    CHECK(transport.requests().size() == 3);
  }
}

TEST_CASE("Docker Hub is never used over http, and mirrors must be hosts",
          "[oci][registry][error]") {
  auto const transport = files({});
  RegistryOptions plain;
  plain.protocol = RegistryProtocol::http;

  CHECK_FALSE(FakeRegistry::make(*Reference::parse("nginx"), plain, transport).has_value());
  CHECK(FakeRegistry::make(*Reference::parse("r.x/nginx"), plain, transport).has_value());
  CHECK_FALSE(RegistryHost::parse("not a host/").has_value());
}

TEST_CASE("Hosts are asked only for what they may say, at their own paths, with their headers",
          "[oci][registry]") {
  std::vector<std::string> asked;
  auto const transport = FakeTransport([&](HttpRequest const& request, std::size_t) {
    asked.push_back(request.url.to_string().substr(0, request.url.to_string().find("sha256")));
    if (request.url.host == "cache") CHECK(header_of(request, "X-Key") == "s3cret");
    if (request.url.host != "cache") CHECK(header_of(request, "X-Key").empty());
    if (request.url.host == "cache") {
      return FakeReply{307, {{"Location", "https://cdn.x/blob"}}};
    }
    return FakeReply{404};
  });
  RegistryOptions options;
  options.mirrors = {*RegistryHost::parse("cache/proxy/"), *RegistryHost::parse("blind")};
  options.mirrors[0].resolves = false;
  options.mirrors[0].headers = {{"X-Key", "s3cret", true}};
  options.mirrors[1].pulls = false;
  options.server = *RegistryHost::parse("https://real.x");
  auto const hub = registry("nginx", transport, options);
  Descriptor blob;
  blob.digest = digest_of(as_bytes("x"));
  blob.size = 1;
  Bytes out(1);

  CHECK_FALSE(hub.resolve(amd64).has_value());
  CHECK_FALSE(hub.blob(blob).read_at(0, out).has_value());

  CHECK(asked ==
        std::vector<std::string>{"https://blind/v2/library/nginx/manifests/latest?ns=docker.io",
                                 "https://real.x/v2/library/nginx/manifests/latest?ns=docker.io",
                                 "https://real.x/v2/library/nginx/tags/list?n=11&ns=docker.io",
                                 "https://cache/proxy/v2/library/nginx/blobs/",
                                 "https://cdn.x/blob", "https://real.x/v2/library/nginx/blobs/"});
}

TEST_CASE("A registry needs a host that may be asked", "[oci][registry][error]") {
  RegistryOptions options;
  options.server = *RegistryHost::parse("r.x");
  options.server->resolves = false;

  auto const image = registry("r.x/n:v1", files({}), options).resolve(amd64);

  REQUIRE_FALSE(image.has_value());
  CHECK_THAT(image.error().message(), Catch::Contains("no host may resolve a tag"));
  options.server->pulls = false;
  CHECK_FALSE(FakeRegistry::make(*Reference::parse("r.x/n"), options, files({})).has_value());
}

TEST_CASE("A blob is read with the login of its repository", "[oci][registry]") {
  auto const transport = FakeTransport([](HttpRequest const& request, std::size_t) {
    auto const basic = "Basic " + base64_encode("me:secret");
    if (header_of(request, "Authorization") != basic) {
      return FakeReply{401, {{"WWW-Authenticate", "Basic realm=x"}}};
    }
    if (request.url.target.starts_with("/v2/n/m/blobs/")) {
      return testing::serve(request, as_bytes("layer"));
    }
    return FakeReply{200, {}, to_bytes(manifest_text)};
  });
  RegistryOptions options;
  options.credentials = [](std::string const&, std::string const&) {
    return Result<std::optional<Credentials>>(Credentials{"me", "secret", {}, {}});
  };
  auto const r = registry("r.x/n/m:v1", transport, options);
  auto const image = r.resolve(amd64);
  REQUIRE(image.has_value());

  auto const blob = r.blob(image->manifest.layers[0]);
  Bytes out(10);

  CHECK(blob.size() == 5);
  CHECK(blob.read_at(0, out) == std::size_t{5});
  CHECK(as_text(std::span(out).first(5)) == "layer");
  CHECK(transport.requests().size() == 3);  // 401, manifest, blob: the login lasts
}

TEST_CASE("Referrers come from the API, page by page, filtered here", "[oci][registry]") {
  auto const subject = digest_of(as_bytes("x"));
  auto wanted = describe("a", media_type::oci_manifest);
  wanted.artifact_type = media_type::soci_v1;
  auto const other = describe("b", media_type::oci_manifest);
  auto const transport = FakeTransport([&](HttpRequest const& request, std::size_t n) {
    if (n == 0) {
      CHECK(request.url.target == "/v2/n/m/referrers/" + subject.to_string() +
                                      "?artifactType=" + percent_encode(media_type::soci_v1));
      return FakeReply{200,
                       {{"Link", "</v2/n/m/referrers/next?n=1>; rel=\"next\""}},
                       to_bytes(index_text({other}))};
    }
    CHECK(request.url.target == "/v2/n/m/referrers/next?n=1");
    return FakeReply{200, {}, to_bytes(index_text({wanted}))};
  });

  auto const found = registry("r.x/n/m", transport).referrers(subject, media_type::soci_v1);

  REQUIRE(found.has_value());
  CHECK(*found == std::vector{wanted});
}

TEST_CASE("Referrers fall back to the tag of that name, and to nothing", "[oci][registry]") {
  auto const subject = digest_of(as_bytes("x"));
  auto const entry = describe("a", media_type::oci_manifest);
  auto const tag = "manifests/sha256-" + subject.hex();

  CHECK(*registry("r.x/n/m", files({{tag, index_text({entry})}})).referrers(subject, "") ==
        std::vector{entry});
  CHECK(registry("r.x/n/m", files({})).referrers(subject, "")->empty());
  CHECK_FALSE(registry("r.x/n/m", files({{tag, manifest_text}})).referrers(subject, ""));
}

TEST_CASE("That nothing refers to a manifest is told, and not asked again", "[oci][registry]") {
  testing::FakeRegistry const fake;
  auto const subject = digest_of(as_bytes("the image"));
  std::vector<std::string> none;
  RegistryOptions options;
  auto const name = [](Digest const& digest, std::string_view type) {
    return digest.to_string() + " " + std::string(type);
  };
  options.local.none_refers = [&](Digest const& digest, std::string_view type) {
    return std::ranges::find(none, name(digest, type)) != none.end();
  };
  options.local.keep_none = [&](Digest const& digest, std::string_view type) {
    none.push_back(name(digest, type));
  };
  auto const from = *BasicRegistry<FakeTransport, ManualClock>::make(*Reference::parse("r.x/n/m"),
                                                                     options, fake.transport());
  CHECK(from.referrers(subject, "application/x")->empty());
  CHECK(none.size() == 1);
  auto const asked = fake.transport().requests().size();
  CHECK(asked == 1);
  CHECK(from.referrers(subject, "application/x")->empty());
  CHECK(fake.transport().requests().size() == asked);
  CHECK(from.referrers(subject, "application/y")->empty());
  CHECK(fake.transport().requests().size() == asked + 1);

  // What is there, and what cannot be known, is not remembered as nothing.
  auto const other = digest_of(as_bytes("another image"));
  Manifest artifact;
  artifact.media_type = media_type::oci_manifest;
  artifact.artifact_type = "application/x";
  artifact.subject = Descriptor{};
  artifact.subject->digest = other;
  fake.add_manifest("n/m", "artifact", encode(artifact));
  none.clear();
  CHECK(from.referrers(other, "application/x")->size() == 1);
  CHECK(none.empty());
  testing::FakeRegistry const broken(
      {.instead = [](auto const&, auto) { return std::optional(testing::FakeReply{503}); }});
  auto const from_broken = *BasicRegistry<FakeTransport, ManualClock>::make(
      *Reference::parse("r.x/n/m"), options, broken.transport());
  CHECK_FALSE(from_broken.referrers(subject, "application/x").has_value());
  CHECK(none.empty());
}

TEST_CASE("A document that is kept under another digest is refused", "[oci][registry][error]") {
  auto const digest = digest_of(as_bytes(manifest_text));
  auto kept = digest;
  RegistryOptions options;
  options.local.find = [&](std::string const&) {
    return Result<std::optional<LocalDocument>>(
        LocalDocument{kept, std::string(media_type::oci_manifest), to_bytes(manifest_text)});
  };
  auto const transport = FakeTransport([](HttpRequest const&, std::size_t) {
    return FakeReply{503};  // must not be asked
  });
  auto const from = *BasicRegistry<FakeTransport, ManualClock>::make(
      *Reference::parse("r.x/n/m@" + digest.to_string()), options, transport);

  CHECK(from.resolve(amd64).has_value());
  kept = digest_of(as_bytes("another document"));
  CHECK(from.resolve(amd64).error().code == Errc::digest_mismatch);
}

TEST_CASE("A link to another host is not followed", "[oci][registry][error]") {
  auto const transport = FakeTransport([](HttpRequest const&, std::size_t) {
    return FakeReply{200, {{"Link", "<https://evil/>; rel=\"next\""}}, to_bytes(index_text({}))};
  });

  CHECK_FALSE(registry("r.x/n/m", transport).referrers({}, "").has_value());
  CHECK(transport.requests().size() == 1);
}

}  // namespace registry_test
}  // namespace erofs_oci
