// SPDX-License-Identifier: Apache-2.0
#include "doctor.hpp"  // first: proves that the header stands alone

#include <algorithm>

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/posix/temporary_directory.hpp>

#include "containerd_config.hpp"

namespace oci_snapshotter {
namespace doctor_test {

using State = Finding::State;

State state_of(std::vector<Finding> const& findings, std::string_view check) {
  auto const found = std::ranges::find(findings, check, &Finding::check);
  REQUIRE(found != findings.end());
  return found->state;
}

std::string advice_of(std::vector<Finding> const& findings, std::string_view check) {
  return std::ranges::find(findings, check, &Finding::check)->advice;
}

/// What is found about a text for a version.
std::vector<Finding> found_in(std::string const& text, std::optional<ContainerdVersion> version,
                              Config const& config) {
  auto const parsed = ContainerdConfig::parse(text, "name");
  REQUIRE(parsed.has_value());
  return check_containerd(*parsed, version, config);
}

TEST_CASE("containerd's version is found in what it prints", "[snapshotter][doctor]") {
  using Row = std::pair<char const*, std::optional<ContainerdVersion>>;
  auto const [text, version] = GENERATE(
      Row{"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1", {{1, 6, 20}}},
      Row{"containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7", {{2, 1, 4}}},
      Row{"containerd containerd.io v1.7.29\n", {{1, 7, 29}}}, Row{"containerd 1.6", std::nullopt},
      Row{"", std::nullopt}, Row{"v.1.2", std::nullopt}, Row{"99999999999.0.0", std::nullopt});

  CHECK(ContainerdVersion::find(text) == version);
}

TEST_CASE("What the doctor writes for a version is all that it wants of that version",
          "[snapshotter][doctor]") {
  auto const directory = erofs_oci::TemporaryDirectory::make("/tmp/snapshot-doctor-").value();
  Config config;
  config.root = directory.path();
  config.address = "/run/socket";
  auto const version =
      GENERATE(ContainerdVersion{1, 7, 16}, ContainerdVersion{1, 7, 29}, ContainerdVersion{2, 0, 0},
               ContainerdVersion{2, 0, 10}, ContainerdVersion{2, 1, 0}, ContainerdVersion{2, 4, 0});

  auto const findings = found_in(containerd_snippet(version, "oci", config), version, config);

  for (auto const& one : findings) CHECK(one.state == State::ok);
  CHECK(findings.size() == 5);
}

TEST_CASE("For 1.6 a directory takes the place of the export", "[snapshotter][doctor]") {
  auto const directory = erofs_oci::TemporaryDirectory::make("/tmp/snapshot-doctor-").value();
  Config config;
  config.root = directory.path();
  auto const version =
      GENERATE(std::optional<ContainerdVersion>(), std::optional(ContainerdVersion{1, 6, 20}));
  auto const text = containerd_snippet(version, "oci", config);
  CHECK(text.find("exports") == text.npos);

  auto const findings =
      found_in("root = \"" + directory.path() + "/no\"\n" + text, version, config);

  CHECK(state_of(findings, "labels") == State::ok);
  CHECK(state_of(findings, "exports.root") == State::warning);
  CHECK_THAT(advice_of(findings, "exports.root"), Catch::Contains("make that directory"));
}

TEST_CASE("Each wrong setting is found, and its advice is a snippet", "[snapshotter][doctor]") {
  Config config;
  config.address = "/run/socket";
  ContainerdVersion const old{1, 7, 20};
  ContainerdVersion const recent{2, 2, 0};
  std::string const plugin = "[proxy_plugins.x]\ntype = \"snapshot\"\naddress = \"/run/socket\"\n";
  std::string const cri = "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n";
  std::string const images = "[plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"x\"\n";
  std::string const exports = "exports.enable_remote_snapshot_annotations = \"true\"\n";

  CHECK(state_of(found_in("", old, config), "plugin") == State::failed);
  CHECK_THAT(advice_of(found_in("", old, config), "plugin"),
             Catch::Contains("[proxy_plugins.oci]") && Catch::Contains("/run/socket"));
  CHECK(state_of(found_in("[proxy_plugins.x]\ntype = \"content\"\naddress = \"/run/socket\"", old,
                          config),
                 "plugin") == State::failed);

  auto const other = found_in(plugin + cri + "snapshotter = \"overlayfs\"", old, config);
  CHECK(state_of(other, "images") == State::failed);
  CHECK(state_of(other, "labels") == State::failed);
  CHECK_THAT(advice_of(other, "labels"), Catch::Contains("disable_snapshot_annotations = false"));
  CHECK(state_of(other, "exports.root") == State::warning);

  auto const disabled = found_in("disabled_plugins = [\"cri\"]\n" + plugin, old, config);
  CHECK(state_of(disabled, "images") == State::skipped);

  auto const declares = plugin + "capabilities = [\"remap-ids\"]\n";
  CHECK(state_of(found_in(declares, old, config), "remap-ids") == State::failed);
  CHECK(state_of(found_in(plugin, old, config), "remap-ids") == State::ok);
  CHECK(state_of(found_in(declares, recent, config), "remap-ids") == State::ok);
  CHECK(state_of(found_in(plugin, recent, config), "remap-ids") == State::warning);
  CHECK_THAT(advice_of(found_in(plugin, recent, config), "remap-ids"),
             Catch::Contains("capabilities = [\"remap-ids\"]"));
  CHECK(state_of(found_in("version = 3\n" + declares, std::nullopt, config), "remap-ids") ==
        State::ok);
  CHECK(state_of(found_in("version = 2\n" + declares, std::nullopt, config), "remap-ids") ==
        State::failed);
  auto by_fuse = config;
  by_fuse.tool.attach = "fuse-tree";
  CHECK(state_of(found_in(declares, recent, by_fuse), "remap-ids") == State::failed);
  CHECK(state_of(found_in(plugin, recent, by_fuse), "remap-ids") == State::ok);
  CHECK(containerd_snippet(recent, "x", by_fuse).find("remap-ids") == std::string::npos);

  // The transfer service needs two settings; a local pull needs the old one.
  CHECK(state_of(found_in(plugin + exports + images, recent, config), "labels") == State::failed);
  CHECK_THAT(advice_of(found_in(plugin + exports + images, recent, config), "labels"),
             Catch::Contains("unpack_config"));
  auto const unpack =
      "[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n"
      "snapshotter = \"x\"\n";
  CHECK(state_of(found_in(plugin + images + unpack, recent, config), "labels") == State::failed);
  CHECK(state_of(found_in(plugin + exports + images + unpack, recent, config), "labels") ==
        State::ok);
  CHECK(state_of(found_in(plugin + images + "use_local_image_pull = true", recent, config),
                 "labels") == State::failed);
  CHECK(state_of(found_in(plugin + images + "disable_snapshot_annotations = false", recent, config),
                 "labels") == State::ok);
}

TEST_CASE("What systemd tells of the unit is judged", "[snapshotter][doctor]") {
  auto const good = check_unit(
      "KillMode=process\nBefore=multi-user.target containerd.service shutdown.target\n"
      "LoadState=loaded\n");
  CHECK(state_of(good, "unit") == State::ok);
  CHECK(state_of(good, "restart") == State::ok);

  auto const bad =
      check_unit("LoadState=loaded\nKillMode=control-group\nBefore=my-containerd.service");
  CHECK(state_of(bad, "unit") == State::failed);
  CHECK(state_of(bad, "restart") == State::failed);

  CHECK(state_of(check_unit("LoadState=not-found\nBefore=\n"), "unit") == State::warning);
  CHECK(state_of(check_unit(""), "unit") == State::warning);
}

TEST_CASE("Findings are lines for people, and an object for programs", "[snapshotter][doctor]") {
  std::vector<Finding> const findings{{"a", State::ok, "good"},
                                      {"b", State::failed, "bad", "do this:\nx = \"1\"\n"}};

  CHECK(findings_text(findings) ==
        "ok       a: good\nfailed   b: bad\n         -> do this:\n            x = \"1\"\n");
  auto const text = findings_json(findings);
  auto const json = erofs_oci::json::parse(erofs_oci::as_bytes(text), "doctor");
  REQUIRE(json.has_value());
  CHECK((*json)["checks"][0] ==
        erofs_oci::json::Value({{"check", "a"}, {"state", "ok"}, {"text", "good"}}));
  CHECK((*json)["checks"][1]["advice"] == "do this:\nx = \"1\"\n");
}

}  // namespace doctor_test
}  // namespace oci_snapshotter
