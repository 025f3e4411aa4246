// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/hosts_toml.hpp>  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>
#include <string>
#include <tuple>
#include <vector>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/posix/path.hpp>

namespace erofs_oci {
namespace hosts_toml_test {

Result<HostsFile> parse(std::string_view text) {
  return parse_hosts_toml(text, "hosts.toml", "/d", "r.x:5000");
}

std::string url_of(RegistryHost const& host) {
  return host.api.to_string();
}

TEST_CASE("A hosts.toml has mirrors in the order of its text, and a server", "[oci][hosts]") {
  auto const file = parse(R"(
server = "https://docker.io"
ca = "ca.pem"

[host."https://zebra.x"]
  capabilities = ["pull", "resolve", "push"]
[host."http://apple.x:5000".header]
  x-key = "one"
  x-more = ["two", "three"]
[host."http://apple.x:5000"]
  capabilities = ["pull"]
  ca = ["/a.pem", "b.pem"]
  client = [["c.cert", "/c.key"]]
[host."https://harbor.x/v2/proxy"]
  override_path = true
  capabilities = []
  client = "both.pem"
  dial_timeout = "1s"
)");

  REQUIRE(file.has_value());
  REQUIRE(file->mirrors.size() == 3);
  auto const& [zebra, apple, harbor] =
      std::tie(file->mirrors[0], file->mirrors[1], file->mirrors[2]);
  CHECK(zebra == *RegistryHost::parse("https://zebra.x"));
  CHECK(url_of(apple) == "http://apple.x:5000/v2");
  CHECK((apple.pulls && !apple.resolves));
  CHECK(apple.tls.ca_files == std::vector<std::string>{"/a.pem", "/d/b.pem"});
  CHECK(apple.tls.client_certificate == "/d/c.cert");
  CHECK(apple.tls.client_key == "/c.key");
  CHECK(apple.headers ==
        HttpHeaders{{"x-key", "one", true}, {"x-more", "two", true}, {"x-more", "three", true}});
  CHECK(url_of(harbor) == "https://harbor.x/v2/proxy");
  CHECK((!harbor.pulls && !harbor.resolves));
  CHECK(harbor.tls.client_certificate == "/d/both.pem");
  REQUIRE(file->server.has_value());
  CHECK(url_of(*file->server) == "https://registry-1.docker.io/v2");
  CHECK(file->server->tls.ca_files == std::vector<std::string>{"/d/ca.pem"});
  CHECK(file->warnings.empty());
}

TEST_CASE("Settings without a server are the registry's own", "[oci][hosts]") {
  CHECK_FALSE(parse("").value().server.has_value());

  auto const file = parse("skip_verify = true\nfuture_key = 1\n[host.\"m\"]\nskip_verify = false");

  REQUIRE(file.has_value());
  CHECK(url_of(file->server.value()) == "https://r.x:5000/v2");
  CHECK(file->server->tls.skip_verify);
  CHECK_FALSE(file->mirrors.at(0).tls.skip_verify);
  REQUIRE(file->warnings.size() == 2);
  CHECK_THAT(file->warnings[0], Catch::StartsWith("hosts.toml:1: \"skip_verify\": ") &&
                                    Catch::Contains("not verified"));
  CHECK_THAT(file->warnings[1], Catch::StartsWith("hosts.toml:2: \"future_key\": "));
}

TEST_CASE("What a hosts.toml gets wrong is named by its line, without a value",
          "[oci][hosts][error]") {
  auto const [text, where] = GENERATE(table<std::string, std::string>({
      {"server = [", "hosts.toml:1: not TOML"},
      {"\nserver = 1", "hosts.toml:2: \"server\": "},
      {"server = \"ftp://s3cret\"", "hosts.toml:1: \"server\": "},
      {"server = \"https://u:s3cret@h\"", "hosts.toml:1: \"server\": "},
      {"host = 1", "hosts.toml:1: \"host\": "},
      {"[host.\"a b\"]", "hosts.toml:1: \"host.a b\": "},
      {"[host.a]\ncapabilities = \"pull\"", "hosts.toml:2: \"host.a.capabilities\": "},
      {"[host.a]\ncapabilities = [\"s3cret\"]", "hosts.toml:2: \"host.a.capabilities.0\": "},
      {"[host.a]\nca = 1", "hosts.toml:2: \"host.a.ca\": "},
      {"[host.a]\nclient = [[[\"x\"]]]", "hosts.toml:2: \"host.a.client.0.0"},
      {"[host.a]\nskip_verify = \"yes\"", "hosts.toml:2: \"host.a.skip_verify\": "},
      {"[host.a.header]\nx = \"s3cret\\n\"", "hosts.toml:2: \"host.a.header.x\": "},
      {"[host.a.header]\nhost = \"s3cret\"", "hosts.toml:2: \"host.a.header.host\": "},
  }));

  auto const file = parse(text);

  INFO(text);
  REQUIRE_FALSE(file.has_value());
  CHECK(file.error().code == Errc::corrupt);
  CHECK_THAT(file.error().context, Catch::StartsWith(where) && !Catch::Contains("s3cret"));
}

TEST_CASE("The directory of a registry is found as containerd finds it", "[oci][hosts]") {
  test::Scratch const root;
  auto const put = [&](std::string const& name, std::string const& text) {
    std::filesystem::create_directories(root / folder_of(name));
    std::ofstream(root / name) << text;
  };
  auto const server = [&](std::string const& registry) {
    auto const found = find_hosts({root / "none", root.path()}, registry);
    REQUIRE(found.has_value());
    return *found && (*found)->server ? url_of(*(*found)->server) : "none";
  };
  CHECK_FALSE(find_hosts({root.path()}, "r.x").value().has_value());

  put("docker.io/hosts.toml", "server = \"hub.x\"");
  put("a.x:5000/hosts.toml", "server = \"colon.x\"");
  put("b.x:5000/hosts.toml", "server = \"colon.x\"");
  put("b.x_5000_/hosts.toml", "server = \"underscore.x\"");
  put("certs.x/ca.crt", "");
  put("certs.x/me.cert", "");
  CHECK(server("other.x") == "none");
  put("_default/hosts.toml", "server = \"default.x\"");

  CHECK(server(std::string(Reference::docker_hub)) == "https://hub.x/v2");
  CHECK(server("a.x:5000") == "https://colon.x/v2");
  CHECK(server("b.x:5000") == "https://underscore.x/v2");
  CHECK(server("a.x") == "https://default.x/v2");
  auto const docker = find_hosts({root.path()}, "certs.x").value().value();
  CHECK(url_of(docker.server.value()) == "https://certs.x/v2");
  CHECK(docker.server->tls.ca_files == std::vector<std::string>{root / "certs.x/ca.crt"});
  CHECK(docker.server->tls.client_key == root / "certs.x/me.key");
}

}  // namespace hosts_toml_test
}  // namespace erofs_oci
