// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/credentials.hpp>  // first: proves that the header stands alone

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/oci/encoding.hpp>

namespace erofs_oci {
namespace credentials_test {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

std::string const hub(Reference::docker_hub);

/// A directory of its own, gone afterwards; on PATH while it lives, for helpers.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char const* const before = std::getenv("PATH");
    before_ = before != nullptr ? before : "";
    ::setenv("PATH", (scratch_.path() + ":" + before_).c_str(), 1);
  }
  TemporaryDirectory(TemporaryDirectory const&) = delete;
  TemporaryDirectory& operator=(TemporaryDirectory const&) = delete;
  ~TemporaryDirectory() { ::setenv("PATH", before_.c_str(), 1); }

  std::string write(std::string const& name, std::string const& text) const {
    auto const path = scratch_ / name;
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path) << text;
    return path;
  }

  void helper(std::string const& name, std::string const& script) const {
    auto const path = write("docker-credential-" + name, "#!/bin/sh\n" + script);
    fs::permissions(path, fs::perms::owner_all);
  }

 private:
  test::Scratch scratch_;
  std::string before_;
};

/// Who is found: "user:password", "id=…", "registry=…", "none" or "error".
std::string found(std::string const& config, std::string const& registry = "r.example",
                  std::string const& repository = "a/b") {
  auto const credentials = credentials_from(config, registry, repository, 5s);
  if (!credentials) return "error";
  if (!*credentials) return "none";
  if (!(*credentials)->identity_token.empty()) return "id=" + (*credentials)->identity_token;
  if (!(*credentials)->registry_token.empty()) return "registry=" + (*credentials)->registry_token;
  return (*credentials)->username + ":" + (*credentials)->password;
}

std::string auths(std::string const& entries) {
  return R"({"auths":{)" + entries + "}}";
}

std::string entry(std::string const& key, std::string const& login) {
  return '"' + key + R"(":{"auth":")" + base64_encode(login) + "\"}";
}

TEST_CASE("auths keys match in every spelling that tools write", "[oci][credentials]") {
  for (auto const* key : {"r.example", "https://r.example", "https://r.example/",
                          "https://r.example/v1/", "https://r.example/v2/", "http://r.example/v2",
                          "R.Example", "r.example/a", "r.example/a/b"}) {
    INFO(key);
    CHECK(found(auths(entry(key, "u:p"))) == "u:p");
  }
  for (auto const* key : {"example", "r.example.evil", "r.example:443", "evil/r.example",
                          "r.example/a/b/c", "r.example/aa", "r.example/a/bc", ""}) {
    INFO(key);
    CHECK(found(auths(entry(key, "u:p"))) == "none");
  }
  for (auto const* key : {"https://index.docker.io/v1/", "docker.io", "index.docker.io",
                          "registry-1.docker.io", "docker.io/library"}) {
    INFO(key);
    CHECK(found(auths(entry(key, "u:p")), hub, "library/nginx") == "u:p");
  }
}

TEST_CASE("The longest path wins", "[oci][credentials]") {
  auto const config = auths(entry("r.example", "host:1") + "," + entry("r.example/a/b", "b:1") +
                            "," + entry("https://r.example/a", "a:1"));

  CHECK(found(config, "r.example", "a/b") == "b:1");
  CHECK(found(config, "r.example", "a/b/c") == "b:1");
  CHECK(found(config, "r.example", "a/x") == "a:1");
  CHECK(found(config, "r.example", "x") == "host:1");
}

TEST_CASE("An entry holds a login in one of four forms", "[oci][credentials]") {
  CHECK(found(auths(entry("r.example", "u:p:with:colons"))) == "u:p:with:colons");
  CHECK(found(auths(R"("r.example":{"username":"u","password":"p"})")) == "u:p");
  CHECK(found(auths(R"("r.example":{"auth":"","identitytoken":"t"})")) == "id=t");
  CHECK(found(auths(R"("r.example":{"registrytoken":"t"})")) == "registry=t");
  CHECK(found(auths(R"("r.example":{})")) == "none");
}

TEST_CASE("A packed login is a name and a password", "[oci][credentials]") {
  auto const packed = [](std::string_view text) { return packed_login(base64_encode(text)); };

  CHECK(packed("u:p:q") == Credentials{"u", "p:q"});
  CHECK(packed(std::string_view("u:p\0\0", 5)) == Credentials{"u", "p"});
  CHECK_FALSE(packed("u").has_value());
  CHECK_FALSE(packed_login("").has_value());
  CHECK_FALSE(packed_login("u:p").has_value());
}

TEST_CASE("Helpers are asked for Docker Hub by its old name", "[oci][credentials]") {
  CHECK(helper_server(Reference::docker_hub) == "https://index.docker.io/v1/");
  CHECK(helper_server("h.x:5000") == "h.x:5000");
}

TEST_CASE("A config that makes no sense is an error", "[oci][credentials][error]") {
  for (auto const& config :
       {std::string("nonsense"), std::string("[]"), std::string(R"({"auths":[]})"),
        std::string(R"({"auths":{"r.example":7}})"),
        std::string(R"({"auths":{"r.example":{"auth":"!"}}})"),
        auths(entry("r.example", "nocolon")), std::string(R"({"credHelpers":[]})"),
        std::string(R"({"credsStore":7})"), std::string(R"({"credsStore":"../evil"})"),
        std::string(R"({"credsStore":"a b"})")}) {
    INFO(config);
    CHECK(found(config) == "error");
  }
}

TEST_CASE("Helpers come before auths: the host's own, then the store", "[oci][credentials]") {
  TemporaryDirectory const directory;
  directory.helper("one",
                   R"(read host; printf '{"Username":"one","Secret":"%s %s"}' "$1" "$host")");
  directory.helper("token", R"(printf '{"Username":"<token>","Secret":"id"}')");
  directory.helper("empty", "echo 'credentials not found in native keychain'; exit 1");
  directory.helper("broken", "exit 3");
  directory.helper("nothing", "echo '{}'");
  directory.helper("tokenless", R"(printf '{"Username":"<token>"}')");
  auto const known = R"("auths":{)" + entry("r.example", "u:p") + "}";

  CHECK(found(R"({"credHelpers":{"r.example":"one"},"credsStore":"broken",)" + known + "}") ==
        "one:get r.example");
  CHECK(found(R"({"credHelpers":{"other":"broken"},"credsStore":"one",)" + known + "}") ==
        "one:get r.example");
  CHECK(found(R"({"credsStore":"token"})") == "id=id");
  CHECK(found(R"({"credsStore":"empty",)" + known + "}") == "u:p");
  CHECK(found(R"({"credsStore":"broken",)" + known + "}") == "error");
  CHECK(found(R"({"credsStore":"nothing",)" + known + "}") == "error");
  CHECK(found(R"({"credsStore":"tokenless",)" + known + "}") == "error");
  CHECK(found(R"({"credsStore":"not-there",)" + known + "}") == "error");
  CHECK(found(R"({"credsStore":"one"})", hub, "library/x") ==
        "one:get https://index.docker.io/v1/");
}

TEST_CASE("A helper that hangs is an error in time", "[oci][credentials][error]") {
  TemporaryDirectory const directory;
  directory.helper("slow", "exec sleep 30");

  auto const credentials = credentials_from(R"({"credsStore":"slow"})", "r.example", "a", 200ms);

  REQUIRE_FALSE(credentials.has_value());
  CHECK(credentials.error().code == Errc::unauthorized);
}

TEST_CASE("Files are read in order and may be missing", "[oci][credentials]") {
  TemporaryDirectory const directory;
  auto const first = directory.write("first.json", auths(entry("other", "x:y")));
  auto const second = directory.write("second.json", auths(entry("r.example", "u:p")));
  auto const bad = directory.write("bad.json", "{");
  CredentialOptions options;
  options.config_files = {first + ".missing", first + "/not/a/directory", first, second, bad};

  auto const credentials = find_credentials(options, "r.example", "a");
  auto const unlucky = find_credentials(options, "nobody.example", "a");

  REQUIRE(credentials.has_value());
  CHECK(*credentials == Credentials{"u", "p", {}, {}});
  REQUIRE_FALSE(unlucky.has_value());
  CHECK_THAT(unlucky.error().message(), Catch::Contains("bad.json"));

  options.given = {"r.example", {"me", "mine", {}, {}}};
  CHECK((*find_credentials(options, "r.example", "a"))->username == "me");
}

TEST_CASE("What was given for one registry is for no other, its mirrors included",
          "[oci][credentials]") {
  TemporaryDirectory const directory;
  CredentialOptions options;
  options.config_files = {directory.write("config.json", auths(entry("mirror.example", "u:p")))};
  options.given = {"r.example", {"me", "mine", {}, {}}};
  auto const username = [&](std::string const& registry) {
    auto const found = find_credentials(options, registry, "a");
    REQUIRE(found.has_value());
    return *found ? (*found)->username : "nobody";
  };

  CHECK(username("r.example") == "me");
  CHECK(username("mirror.example") == "u");
  CHECK(username("r.example:5000") == "nobody");
  CHECK(username("other.example") == "nobody");
}

TEST_CASE("The files of Docker and of containers are found by the environment",
          "[oci][credentials]") {
  auto const files = [](std::map<std::string, std::string> const& variables) {
    return default_config_files([&](char const* name) -> char const* {
      auto const value = variables.find(name);
      return value == variables.end() ? nullptr : value->second.c_str();
    });
  };

  CHECK(files({}).empty());
  CHECK(files({{"HOME", "/h"}}) == std::vector<std::string>{"/h/.docker/config.json"});
  CHECK(files({{"HOME", "/h"},
               {"DOCKER_CONFIG", "/d"},
               {"REGISTRY_AUTH_FILE", "/r"},
               {"XDG_RUNTIME_DIR", "/x"}}) ==
        std::vector<std::string>{"/d/config.json", "/r", "/x/containers/auth.json"});
}

TEST_CASE("A password file is its first line", "[oci][credentials]") {
  TemporaryDirectory const directory;

  CHECK(read_password_file(directory.write("a", "se cret\r\nmore")) == "se cret");
  CHECK(read_password_file(directory.write("b", "secret")) == "secret");
  CHECK_FALSE(read_password_file(directory.write("c", "\n")).has_value());
  CHECK_FALSE(read_password_file(directory.write("d", std::string(70'000, 'x'))).has_value());
  CHECK_FALSE(read_password_file("/nonexistent").has_value());
}

}  // namespace credentials_test
}  // namespace erofs_oci
