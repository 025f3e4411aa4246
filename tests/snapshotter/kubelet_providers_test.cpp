// SPDX-License-Identifier: Apache-2.0
#include "kubelet_providers.hpp"  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>
#include <sstream>

#include <catch.hpp>

#include <erofs_oci/posix/temporary_directory.hpp>

namespace oci_snapshotter {
namespace kubelet_providers_test {

using erofs_oci::Errc;
using std::chrono::seconds;

std::string const head = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n";

TEST_CASE("kubelet's file of providers is read", "[snapshotter][logins]") {
  auto const list = parse_provider_config(head + R"(
providers:
  - name: ecr-credential-provider
    matchImages:
      - "*.dkr.ecr.*.amazonaws.com"
      - "h.x:5000/a"
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args: [get-credentials, "--x"]
    env:
      - name: AWS_PROFILE
        value: y
  - {name: b, matchImages: [b.x], apiVersion: credentialprovider.kubelet.k8s.io/v1beta1}
)",
                                          "name");

  REQUIRE(list.has_value());
  CHECK(*list ==
        std::vector<ProviderOptions>{
            {"ecr-credential-provider",
             "credentialprovider.kubelet.k8s.io/v1",
             {"*.dkr.ecr.*.amazonaws.com", "h.x:5000/a"},
             {"get-credentials", "--x"},
             {"AWS_PROFILE=y"},
             seconds(12 * 3600)},
            {"b", "credentialprovider.kubelet.k8s.io/v1beta1", {"b.x"}, {}, {}, seconds(0)}});
}

TEST_CASE("A file that is none of kubelet's is refused by its name",
          "[snapshotter][logins][error]") {
  auto const api = std::string(", apiVersion: credentialprovider.kubelet.k8s.io/v1");
  auto const text = GENERATE_COPY(
      std::string("a: ["), std::string("- a"), std::string("kind: Pod"), std::string(),
      head + "providers: [1]", head + "providers: [{name: a, matchImages: [b]}]",
      head + "providers: [{name: a" + api + "}]",
      head + "providers: [{name: ../a, matchImages: [b]" + api + "}]",
      head + "providers: [{name: a, matchImages: [b], defaultCacheDuration: 1y" + api + "}]",
      head + "providers: [{name: a, matchImages: [[b]]" + api + "}]",
      head + "providers: [{name: a, matchImages: [b], env: [x]" + api + "}]",
      head + "providers: [{name: a, matchImages: [b], args: --x" + api + "}]",
      head + "providers: [{name: a, matchImages: [b], env: {x: y}" + api + "}]",
      head + "providers: {a: {name: a}}", head + "providers: a",
      head + "providers: [{name: a, matchImages: [b], tokenAttributes: {}" + api + "}]");

  auto const list = parse_provider_config(text, "name");

  REQUIRE_FALSE(list.has_value());
  CHECK_THAT(list.error().message(), Catch::Contains("name: "));
}

TEST_CASE("Patterns match hosts by parts and paths by their beginning", "[snapshotter][logins]") {
  struct Row {
    char const* pattern;
    char const* repository;
    bool matches;
  };
  auto const row =
      GENERATE(Row{"*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com/a", true},
               Row{"*.io", "k8s.io/a", true}, Row{"*.io", "a.k8s.io/a", false},
               Row{"app*.k8s.io", "app5.k8s.io/a", true}, Row{"k8s.*", "k8s.io/a", true},
               Row{"h.x/a", "h.x/a/b", true}, Row{"h.x/a", "h.x/b", false},
               Row{"https://h.x", "h.x/b", true}, Row{"h.x:1", "h.x:1/b", true},
               Row{"h.x:1", "h.x/b", false}, Row{"h.x:1", "h.x:2/b", false},
               Row{"h.x", "h.x:2/b", true}, Row{"", "h.x/b", false}, Row{"h", "h.x/b", false},
               Row{"h.x.y", "h.x/b", false}, Row{"/b", "h.x/b", false});

  CAPTURE(row.pattern, row.repository);
  CHECK(matches_image(row.pattern, row.repository) == row.matches);
}

TEST_CASE("Go's durations are read", "[snapshotter][logins]") {
  using Row = std::pair<char const*, std::optional<seconds>>;
  auto const [text, time] =
      GENERATE(Row{"12h", seconds(43200)}, Row{"1h30m5s", seconds(5405)}, Row{"0", seconds(0)},
               Row{"0s", seconds(0)}, Row{"500ms", seconds(0)}, Row{"1.5s", seconds(1)},
               Row{"", std::nullopt}, Row{"5", std::nullopt}, Row{"h", std::nullopt},
               Row{"-1s", std::nullopt}, Row{"1d", std::nullopt}, Row{"1.h", std::nullopt},
               Row{"4294967295h", std::nullopt}, Row{"99999999999999999999s", std::nullopt});

  CAPTURE(text);
  CHECK(parse_go_duration(text) == time);
}

/// A plugin that notes what it was asked, and answers with a text.
struct Plugin {
  erofs_oci::TemporaryDirectory directory =
      erofs_oci::TemporaryDirectory::make("/tmp/snapshot-provider-").value();
  std::string answer = directory.path() + "/answer";
  std::string asked = directory.path() + "/asked";
  std::vector<std::string> said{};

  Plugin() {
    auto const path = directory.path() + "/plugin";
    write(path, "#!/bin/sh\n(cat; echo \" $1 $WORD\") >>" + asked + "\ncat " + answer + "\n");
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  }
  ~Plugin() {
    for (auto const& entry : std::filesystem::directory_iterator(directory.path())) {
      std::filesystem::remove(entry.path());
    }
  }
  static void write(std::string const& path, std::string const& text) {
    std::ofstream(path) << text;
  }
  [[nodiscard]] std::size_t calls() const {
    std::ifstream file(asked);
    std::size_t lines = 0;
    for (std::string line; std::getline(file, line);) ++lines;
    return lines;
  }
  KubeletProviders providers(seconds remember = seconds(0)) {
    return KubeletProviders({{.name = "plugin",
                              .api_version = "credentialprovider.kubelet.k8s.io/v1",
                              .images = {"*.x"},
                              .arguments = {"arg"},
                              .variables = {"WORD=word"},
                              .remember = remember}},
                            directory.path(), [this](auto const& text) { said.push_back(text); });
  }
};

std::string response(std::string const& key, std::string const& time) {
  return R"({"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1",)"
         R"("cacheKeyType":")" +
         key + R"(","cacheDuration":")" + time +
         R"(","auth":{"h.x":{"username":"u","password":"all"},"h.x/a":{"username":"u","password":"a"}}})";
}

TEST_CASE("A plugin is asked as kubelet asks it, and its best pattern wins",
          "[snapshotter][logins]") {
  Plugin plugin;
  Plugin::write(plugin.answer, response("Image", "0s"));
  auto providers = plugin.providers();

  CHECK(providers.find("h.x/a/b") == Login{"u", "a"});
  CHECK(providers.find("h.x/c") == Login{"u", "all"});
  CHECK_FALSE(providers.find("g.x/c").has_value());  // asked, and no pattern is of it
  CHECK_FALSE(providers.find("h.y/c").has_value());  // not asked

  CHECK(plugin.calls() == 3);
  std::ifstream file(plugin.asked);
  std::string line;
  std::getline(file, line);
  CHECK(line == R"({"apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"h.x/a/b",)"
                R"("kind":"CredentialProviderRequest"} arg word)");
}

TEST_CASE("What a plugin says is kept for what it says, and for so long", "[snapshotter][logins]") {
  auto const [key, calls] =
      GENERATE(std::pair("Image", 2U), std::pair("Registry", 1U), std::pair("Global", 1U));
  Plugin plugin;
  Plugin::write(plugin.answer, response(key, "1h"));
  auto providers = plugin.providers();

  for (int i = 0; i < 2; ++i) {
    CHECK(providers.find("h.x/a") == Login{"u", "a"});
    CHECK(providers.find("h.x/b") == Login{"u", "all"});
  }

  CHECK(plugin.calls() == calls);
}

TEST_CASE("A plugin that fails is told of, but not what it says", "[snapshotter][logins][error]") {
  auto const text = GENERATE("", "secret", R"({"kind":"Pod","auth":{"h.x":{"password":"secret"}}})",
                             R"({"kind":"CredentialProviderResponse","auth":["secret"]})",
                             R"({"kind":"CredentialProviderResponse","cacheDuration":"secret"})");
  Plugin plugin;
  Plugin::write(plugin.answer, text);
  auto providers = plugin.providers(seconds(3600));

  CHECK_FALSE(providers.find("h.x/a").has_value());

  REQUIRE(plugin.said.size() == 1);
  CHECK_THAT(plugin.said[0], Catch::Contains("credential provider plugin: "));
  CHECK_THAT(plugin.said[0], !Catch::Contains("secret"));
}

}  // namespace kubelet_providers_test
}  // namespace oci_snapshotter
