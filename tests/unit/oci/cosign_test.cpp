// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/cosign.hpp>  // first: proves that the header stands alone

#include <string>
#include <variant>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/testing/fake_registry.hpp>

namespace erofs_oci {
namespace cosign_test {

using testing::fake_pusher;
using testing::FakeRegistry;
using testing::signing_key;

Digest const subject = digest_of(as_bytes(std::string("artifact")));

TEST_CASE("A signature is found, under the tag where cosign looks for it", "[oci][cosign]") {
  FakeRegistry const registry;
  auto const push = fake_pusher(registry);
  std::vector const keys{signing_key().public_key()};
  CHECK(is_signed(push.registry(), subject, keys) == false);

  REQUIRE(sign_manifest(push, "r.x/n/m", subject, signing_key()).has_value());

  CHECK(is_signed(push.registry(), subject, keys) == true);
  CHECK(is_signed(push.registry(), subject, {}) == false);
  CHECK_FALSE(registry.manifest("n/m", "sha256-" + subject.hex() + ".sig").empty());
}

TEST_CASE("A second signature leaves the first one", "[oci][cosign]") {
  FakeRegistry const registry;
  auto const push = fake_pusher(registry);

  REQUIRE(sign_manifest(push, "r.x/n/m", subject, signing_key()).has_value());
  REQUIRE(sign_manifest(push, "r.x/other", subject, signing_key()).has_value());

  auto const text = registry.manifest("n/m", cosign::tag_of(subject));
  auto const document = parse_document(as_bytes(text));
  CHECK(std::get<Manifest>(*document).layers.size() == 2);
}

/// A manifest of signatures with one layer.
void put_signature(FakeRegistry const& registry, std::string const& payload,
                   std::string const& signature, std::string_view type = cosign::payload_type) {
  Manifest manifest;
  manifest.media_type = media_type::oci_manifest;
  manifest.config = registry.add_blob("n/m", "{}");
  manifest.layers.push_back(registry.add_blob("n/m", payload));
  manifest.layers[0].media_type = type;
  manifest.layers[0].annotations[cosign::signature] = signature;
  registry.add_manifest("n/m", cosign::tag_of(subject), encode(manifest));
}

TEST_CASE("What is no good signature counts as none", "[oci][cosign][error]") {
  FakeRegistry const registry;
  std::vector const keys{signing_key().public_key()};
  auto const right = cosign::payload("r.x/n/m", subject);
  auto const sign = [](std::string const& text) {
    auto const raw = signing_key().sign(as_bytes(text));
    return base64_encode(as_text(raw));
  };
  put_signature(registry, right, sign(right));
  REQUIRE(is_signed(fake_pusher(registry).registry(), subject, keys) == true);

  auto const of_another = cosign::payload("r.x/n/m", digest_of(as_bytes(std::string("other"))));
  struct Case {
    std::string payload;
    std::string signature;
    std::string_view type = cosign::payload_type;
  };
  for (auto const& one :
       std::vector<Case>{{of_another, sign(of_another)},
                         {right, sign(of_another)},
                         {right, ""},
                         {right, "!"},
                         {right, sign(right), "text/plain"},
                         {"[]", sign("[]")},
                         {R"({"critical":7})", sign(R"({"critical":7})")},
                         {std::string(cosign::max_payload_size + 1, ' '), "AA=="}}) {
    INFO(one.payload.substr(0, 200) << ' ' << one.signature);
    put_signature(registry, one.payload, one.signature, one.type);
    CHECK(is_signed(fake_pusher(registry).registry(), subject, keys) == false);
  }
}

TEST_CASE("Something else under the tag of signatures is not overwritten", "[oci][cosign][error]") {
  FakeRegistry const registry;
  Index index;
  index.media_type = media_type::oci_index;
  registry.add_manifest("n/m", cosign::tag_of(subject), encode(index));

  CHECK(sign_manifest(fake_pusher(registry), "r.x/n/m", subject, signing_key()).error().code ==
        Errc::mismatch);
  CHECK(is_signed(fake_pusher(registry).registry(), subject,
                  std::vector{signing_key().public_key()}) == false);
}

}  // namespace cosign_test
}  // namespace erofs_oci
