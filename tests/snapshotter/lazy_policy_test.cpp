// SPDX-License-Identifier: Apache-2.0
#include "lazy_policy.hpp"  // first: proves that the header stands alone

#include <catch.hpp>

#include "chain.hpp"

namespace oci_snapshotter {
namespace lazy_policy_test {

using erofs_oci::as_bytes;
using erofs_oci::Digest;
using erofs_oci::digest_of;

Digest digest(std::string_view text) {
  return digest_of(as_bytes(text));
}

ImageFacts const image{
    "m",
    "host/app",
    {{digest("b0"), digest("d0")}, {digest("b1"), digest("d1")}, {digest("b2"), digest("d2")}}};

Labels labels_of(std::string const& reference) {
  return {{reference_label, digest("d0").to_string()},
          {"containerd.io/snapshot/cri.image-ref", reference},
          {"containerd.io/snapshot/cri.manifest-digest", digest("m").to_string()},
          {"containerd.io/snapshot/cri.layer-digest", digest("b0").to_string()}};
}

TEST_CASE("A chain ID is made of all diffIDs below", "[snapshotter][chain]") {
  std::vector<Digest> diff_ids{digest("d0")};
  CHECK(chain_id({}).empty());
  CHECK(chain_id(diff_ids) == digest("d0").to_string());
  diff_ids.push_back(digest("d1"));
  CHECK(chain_id(diff_ids) ==
        digest(digest("d0").to_string() + " " + digest("d1").to_string()).to_string());
}

TEST_CASE("A stack's name tells its layers and their order", "[snapshotter][chain]") {
  auto turned = image.layers;
  std::swap(turned[0], turned[1]);
  CHECK(stack_name(image.layers) != stack_name(turned));
  CHECK(stack_name(image.layers) != stack_name(std::span(image.layers).first(2)));
  CHECK(stack_name(image.layers) == stack_name(std::vector(image.layers)));
}

TEST_CASE("CRI's labels name the repository and the layer", "[snapshotter][policy]") {
  using Row = std::pair<char const*, char const*>;
  auto const [reference, repository] = GENERATE(
      Row{"127.0.0.1:5000/t/app:1.2", "127.0.0.1:5000/t/app"},
      Row{"docker.io/library/debian:12", "docker.io/library/debian"},
      Row{"ghcr.io/a/b@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
          "ghcr.io/a/b"});

  auto const labels = ImageLabels::of(labels_of(reference));

  REQUIRE(labels.has_value());
  CHECK(labels->repository == repository);
  CHECK(labels->manifest == digest("m").to_string());
  CHECK(labels->layer == digest("b0").to_string());
}

TEST_CASE("Labels that are missing or make no sense name nothing", "[snapshotter][policy][error]") {
  auto labels = labels_of("host.example/app:1");
  REQUIRE(ImageLabels::of(labels).has_value());
  auto const name = GENERATE(
      as<std::string>(), reference_label, "containerd.io/snapshot/cri.image-ref",
      "containerd.io/snapshot/cri.manifest-digest", "containerd.io/snapshot/cri.layer-digest");
  labels[name] = "sha256:short";
  if (name == "containerd.io/snapshot/cri.image-ref") labels[name] = "UPPER/../x";
  CHECK_FALSE(ImageLabels::of(labels).has_value());
  labels.erase(name);
  CHECK_FALSE(ImageLabels::of(labels).has_value());
}

TEST_CASE("A layer fits an image at one depth, and with one chain ID", "[snapshotter][policy]") {
  std::vector<Digest> const lowest{digest("d0"), digest("d1")};
  ImageLabels labels{chain_id(lowest), "host/app", "m", digest("b1").to_string()};

  CHECK(LazyPolicy::fits(image, 2, labels));
  for (auto const depth : {0U, 1U, 3U, 4U}) CHECK_FALSE(LazyPolicy::fits(image, depth, labels));
  labels.chain = digest("d1").to_string();
  CHECK_FALSE(LazyPolicy::fits(image, 2, labels));
  labels = {chain_id(lowest), "host/app", "m", digest("b2").to_string()};
  CHECK_FALSE(LazyPolicy::fits(image, 2, labels));
}

}  // namespace lazy_policy_test
}  // namespace oci_snapshotter
