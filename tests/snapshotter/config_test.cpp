// SPDX-License-Identifier: Apache-2.0
#include "config.hpp"  // first: proves that the header stands alone

#include <catch.hpp>

namespace oci_snapshotter {
namespace config_test {

using erofs_oci::Errc;

TEST_CASE("Every key of the configuration has its effect", "[snapshotter][config]") {
  auto const config = parse_config(R"(
root = "/r"
address = "/a"
[metrics]
address = "127.0.0.1:9"
[lazy]
enabled = false
min_size = 5
timeout = 7
index = "none"
[mount]
program = "/p"
attach = "fuse-file"
journal = "/j"
scope = "none"
options = ["oci.insecure", "oci.store=/s"]
timeout = 8
unmount_after = 0
)",
                                   "name");

  REQUIRE(config.has_value());
  CHECK(config->root == "/r");
  CHECK(config->address == "/a");
  CHECK_THAT(config->lazy.never_because, Catch::Contains("lazy.enabled"));
  CHECK(config->metrics == "127.0.0.1:9");
  CHECK(config->lazy.min_size == 5);
  CHECK(config->lazy.timeout == std::chrono::seconds(7));
  CHECK(config->tool.index == "none");
  CHECK(config->tool.program == "/p");
  CHECK(config->tool.attach == "fuse-file");
  CHECK(config->tool.journal == "/j");
  CHECK(config->tool.scope == "none");
  CHECK(config->tool.words == std::vector<std::string>{"oci.insecure", "oci.store=/s"});
  CHECK(config->mount_timeout == std::chrono::seconds(8));
  CHECK(config->unmount_after == std::chrono::seconds(0));
}

TEST_CASE("An empty configuration is the default", "[snapshotter][config]") {
  auto const config = parse_config("[lazy]\n[mount]\n", "name");

  REQUIRE(config.has_value());
  CHECK(config->lazy.never_because.empty());
  CHECK(config->metrics.empty());
  CHECK(config->tool.index == "signed");
}

TEST_CASE("A text may be empty where that is the default", "[snapshotter][config]") {
  auto const good = parse_config(
      "[credentials]\nimage_service = \"\"\nkubelet_config = \"\"\nkubelet_plugins = \"\"\n"
      "[metrics]\naddress = \"\"\n[mount]\njournal = \"\"\n",
      "name");
  CHECK(good.has_value());

  auto const bad = GENERATE("root = \"\"", "address = \"\"", "[mount]\nprogram = \"\"");
  CHECK_FALSE(parse_config(bad, "name").has_value());
}

TEST_CASE("What is wrong with a configuration is said with its line",
          "[snapshotter][config][error]") {
  using Row = std::pair<char const*, char const*>;
  auto const [text, said] = GENERATE(
      Row{"rot = 1", "name:1: rot: unknown key"}, Row{"\nroot = 1", "name:2: root: must be a text"},
      Row{"[lazy]\nenabled = 1", "name:2: lazy.enabled: must be true or false"},
      Row{"[lazy]\nmin_size = -1", "must be a number from 0"},
      Row{"[lazy]\nx = 1", "name:2: lazy.x: unknown key"}, Row{"[other]", "other: unknown key"},
      Row{"[lazy]\nindex = \"bound\"", "must be one of none, signed"},
      Row{"[mount]\nscope = \"x\"", "must be one of auto, none"},
      Row{"[metrics]\naddress = 1", "metrics.address: must be a text"},
      Row{"[mount]\nunmount_after = 86401", "must be a number from 0 to 86400"},
      Row{"[mount]\noptions = [1]", "must be a list of texts"},
      Row{"[mount]\noptions = [\"oci.password=x\"]", "must be without a password"},
      Row{"[mount]\noptions = [\"ro,oci.password=x\"]", "must be without a password"},
      Row{"[mount]\noptions = [\"oci.layer=1\"]", "must be without words that choose"},
      Row{"root = \"relative\"", "root: relative: not absolute"},
      Row{"root = \"/a:b\"", "overlayfs takes no path"}, Row{"address = \"a\"", "not absolute"},
      Row{"a = ", "name:1"});

  auto const config = parse_config(text, "name");

  REQUIRE_FALSE(config.has_value());
  CHECK_THAT(config.error().message(), Catch::Contains(said));
}

}  // namespace config_test
}  // namespace oci_snapshotter
