// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/index_artifact.hpp>  // first: proves that the header stands alone

#include <string>

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>

namespace erofs_oci {
namespace index_artifact_test {

auto const root = digest_of(as_bytes("root"));
auto const metadata = digest_of(as_bytes("metadata"));

Manifest artifact(Descriptor const& tree) {
  Descriptor image;
  image.digest = digest_of(as_bytes("image"));
  return make_index_artifact(image, {describe_index(as_bytes("index"), root), tree});
}

Result<IndexArtifact> read(Manifest const& manifest) {
  return read_index_artifact(manifest, digest_of(as_bytes("artifact")),
                             digest_of(as_bytes("image")));
}

TEST_CASE("An artifact names the Merkle tree of its image", "[oci][index_artifact]") {
  auto const told = read(artifact(describe_tree(as_bytes("tree"), root, metadata)));

  REQUIRE(told.has_value());
  REQUIRE(told->tree.has_value());
  CHECK(told->tree->root == root);
  CHECK(told->tree->metadata == metadata);
  CHECK(told->tree->at.digest == digest_of(as_bytes("tree")));
  CHECK(told->tree->at.size == 4);
  CHECK(told->indexes.size() == 1);
}

TEST_CASE("A Merkle tree without its root hash is none", "[oci][index_artifact][error]") {
  auto const good = describe_tree(as_bytes("tree"), root, metadata);
  for (auto const* const name : {index_artifact::tree_root, index_artifact::tree_metadata}) {
    auto bad = good;
    bad.annotations[name] = root.hex();
    CHECK_FALSE(read(artifact(bad))->tree.has_value());
    bad.annotations.erase(name);
    CHECK_FALSE(read(artifact(bad))->tree.has_value());
  }
  auto other = good;
  other.media_type = index_artifact::layer_type;
  CHECK_FALSE(read(artifact(other))->tree.has_value());
  CHECK(read(artifact(good))->tree.has_value());
}

}  // namespace index_artifact_test
}  // namespace erofs_oci
