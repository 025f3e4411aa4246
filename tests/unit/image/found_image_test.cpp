// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/found_image.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>

namespace erofs_oci {
namespace found_image_test {

std::vector<Descriptor> descriptors_of(std::initializer_list<std::string_view> texts) {
  std::vector<Descriptor> layers(texts.size());
  std::ranges::transform(texts, layers.begin(), [](std::string_view text) {
    Descriptor one;
    one.digest = digest_of(as_bytes(text));
    return one;
  });
  return layers;
}

TEST_CASE("Layers are chosen by digest, by number, from the bottom up, or all",
          "[image][found_image]") {
  using Numbers = std::vector<std::size_t>;
  auto const layers = descriptors_of({"a", "b", "c"});

  CHECK(choose_layers(layers, {}).value() == Numbers{0, 1, 2});
  CHECK(choose_layers(layers, {.number = 1}).value() == Numbers{1});
  CHECK(choose_layers(layers, {.digest = layers[2].digest, .number = 1}).value() == Numbers{2});
  CHECK(choose_layers(layers, {.first = 1}).value() == Numbers{0});
  CHECK(choose_layers(layers, {.first = 3}).value() == Numbers{0, 1, 2});
  CHECK(choose_layers(layers, {.number = 2, .first = 1}).value() == Numbers{2});
  CHECK(choose_layers({}, {}).value().empty());
}

TEST_CASE("A layer that is not there is named", "[image][found_image][error]") {
  auto const layers = descriptors_of({"a", "b"});

  auto const absent = choose_layers(layers, {.digest = digest_of(as_bytes("c"))});
  REQUIRE_FALSE(absent.has_value());
  CHECK(absent.error().code == Errc::not_found);
  CHECK_THAT(absent.error().message(), Catch::Contains(digest_of(as_bytes("c")).to_string()));
  auto const beyond = choose_layers(layers, {.number = 2});
  REQUIRE_FALSE(beyond.has_value());
  CHECK(beyond.error().code == Errc::invalid_argument);
  CHECK_THAT(beyond.error().message(), Catch::Contains("layer index 2 out of range (0..1)"));
  auto const count = GENERATE(0u, 3u);
  auto const too_many = choose_layers(layers, {.first = count});
  REQUIRE_FALSE(too_many.has_value());
  CHECK(too_many.error().code == Errc::invalid_argument);
  CHECK_THAT(too_many.error().message(),
             Catch::Contains("the first " + std::to_string(count) + " layers of 2"));
}

TEST_CASE("A file is an image of one layer", "[image][found_image]") {
  auto const found = find_file("/proc/self/exe");

  REQUIRE(found.has_value());
  REQUIRE(found->layers.size() == 1);
  CHECK(found->layers[0].descriptor.size == found->layers[0].blob.size());
  CHECK_FALSE(found->digest.has_value());
  CHECK(find_file("/no/such").error().code == std::errc::no_such_file_or_directory);
}

}  // namespace found_image_test
}  // namespace erofs_oci
