// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/descriptor.hpp>  // first: proves that the header stands alone

#include <optional>
#include <string>
#include <vector>

#include <catch.hpp>

namespace erofs_oci {
namespace descriptor_test {

TEST_CASE("Platform::parse knows one spelling for each platform", "[oci][descriptor]") {
  struct Case {
    std::string text, canonical;
  };
  auto const cases = std::vector<Case>{
      {"linux/amd64", "linux/amd64"},       {"linux/amd64/v1", "linux/amd64"},
      {"linux/amd64/v2", "linux/amd64/v2"}, {"Linux/x86_64", "linux/amd64"},
      {"linux/arm64", "linux/arm64"},       {"linux/arm64/v8", "linux/arm64"},
      {"linux/arm64/8", "linux/arm64"},     {"linux/aarch64", "linux/arm64"},
      {"linux/arm", "linux/arm/v7"},        {"linux/arm/7", "linux/arm/v7"},
      {"linux/armhf", "linux/arm/v7"},      {"linux/arm/v6", "linux/arm/v6"},
      {"linux/i386", "linux/386"},          {"linux/riscv64", "linux/riscv64"},
  };
  for (auto const& [text, canonical] : cases) {
    auto const platform = Platform::parse(text);

    INFO(text);
    REQUIRE(platform.has_value());
    CHECK(platform->to_string() == canonical);
  }
}

TEST_CASE("Platform::parse refuses what names no platform", "[oci][descriptor][error]") {
  for (auto const* text : {"", "linux", "/", "linux/", "/amd64", "a/b/c/d", "a//b", "a/b/", "a b/c",
                           "linux/amd64,x"}) {
    INFO(text);
    CHECK_FALSE(Platform::parse(text).has_value());
  }
}

TEST_CASE("platform_distance says how well one platform runs another's programs",
          "[oci][descriptor]") {
  auto const distance = [](char const* wanted, char const* offered) {
    return platform_distance(*Platform::parse(wanted), *Platform::parse(offered));
  };

  CHECK(distance("linux/arm64", "linux/arm64/v8") == 0);
  CHECK(distance("linux/arm64/v8", "linux/arm64") == 0);
  CHECK(distance("linux/arm64/v9", "linux/arm64") == 1);
  CHECK(distance("linux/arm64", "linux/arm64/v9") == std::nullopt);
  CHECK(distance("linux/arm", "linux/arm/v7") == 0);
  CHECK(distance("linux/arm", "linux/arm/v6") == 1);
  CHECK(distance("linux/arm", "linux/arm/v5") == 2);
  CHECK(distance("linux/arm", "linux/arm/v8") == std::nullopt);
  CHECK(distance("linux/arm/v5", "linux/arm/v6") == std::nullopt);
  CHECK(distance("linux/arm/v6", "linux/arm64") == std::nullopt);
  CHECK(distance("linux/amd64/v3", "linux/amd64/v2") == 1);
  CHECK(distance("linux/amd64", "linux/amd64/v2") == std::nullopt);
  CHECK(distance("linux/amd64", "windows/amd64") == std::nullopt);
  CHECK(distance("linux/mips/x", "linux/mips/y") == std::nullopt);
}

TEST_CASE("layer_format reads every layer media type in use", "[oci][descriptor]") {
  auto const oci = std::string("application/vnd.oci.image.layer.");
  auto const docker = std::string("application/vnd.docker.image.rootfs.");

  CHECK(layer_format(oci + "v1.tar") == LayerFormat::tar);
  CHECK(layer_format(oci + "v1.tar+gzip") == LayerFormat::gzip);
  CHECK(layer_format(oci + "v1.tar+zstd") == LayerFormat::zstd);
  CHECK(layer_format(oci + "nondistributable.v1.tar+gzip") == LayerFormat::gzip);
  CHECK(layer_format(docker + "diff.tar.gzip") == LayerFormat::gzip);
  CHECK(layer_format(docker + "foreign.diff.tar.gzip") == LayerFormat::gzip);
  CHECK(layer_format("application/vnd.erofs.layer.v1.erofs") == LayerFormat::erofs);
  CHECK(layer_format("application/octet-stream") == LayerFormat::unknown);
  CHECK(layer_format("") == LayerFormat::unknown);
}

}  // namespace descriptor_test
}  // namespace erofs_oci
