// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/http/proxy.hpp>  // first: proves that the header stands alone

#include <map>
#include <string>

#include <catch.hpp>

namespace erofs_oci {
namespace proxy_test {

Result<Proxies> proxies(std::map<std::string, std::string> const& variables) {
  return Proxies::from_environment([&](char const* name) -> char const* {
    auto const found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

std::string choice(Proxies const& from, std::string const& url) {
  auto const proxy = from.choose(*Url::parse(url));
  return proxy ? proxy->host + ":" + std::to_string(proxy->port) : "direct";
}

TEST_CASE("Proxies are chosen by scheme and host", "[http][proxy]") {
  auto const from = *proxies({{"HTTPS_PROXY", "http://secure:3128"},
                              {"HTTP_PROXY", "plain:8080"},
                              {"NO_PROXY", "example.com, .corp ,Host:5000,10.0.0.1"}});

  CHECK(choice(from, "https://a.b/") == "secure:3128");
  CHECK(choice(from, "http://a.b/") == "plain:8080");
  CHECK(choice(from, "http://example.com/") == "direct");
  CHECK(choice(from, "http://www.example.com/") == "direct");
  CHECK(choice(from, "http://badexample.com/") == "plain:8080");
  CHECK(choice(from, "https://x.corp/") == "direct");
  CHECK(choice(from, "http://host:5000/") == "direct");
  CHECK(choice(from, "http://host:5001/") == "plain:8080");
  CHECK(choice(from, "https://10.0.0.1/") == "direct");
  CHECK(choice(from, "http://localhost:1/") == "direct");
  CHECK(choice(from, "http://127.0.0.1/") == "direct");
  CHECK(choice(from, "http://[::1]/") == "direct");
}

TEST_CASE("Networks and addresses go directly if NO_PROXY says so", "[http][proxy]") {
  auto const from = *proxies({{"HTTPS_PROXY", "http://p:1"},
                              {"NO_PROXY",
                               "10.0.0.0/9,192.168.7.4/30:5000,fd00::/8,[2001:DB8::1]:5000,"
                               "2001:db8::2,172.16.0.0/33,10.9.9/24,*.corp.example"}});

  auto const [url, way] = GENERATE(table<std::string, std::string>({
      {"https://10.127.255.255/", "direct"},
      {"https://10.128.0.0/", "p:1"},
      {"https://192.168.7.6:5000/", "direct"},
      {"https://192.168.7.6/", "p:1"},
      {"https://192.168.7.8:5000/", "p:1"},
      {"https://[fd12::3]/", "direct"},
      {"https://[fe12::3]/", "p:1"},
      {"https://[2001:db8:0::1]:5000/", "direct"},
      {"https://[2001:db8::1]/", "p:1"},
      {"https://[2001:db8::2]/", "direct"},
      {"https://172.16.0.1/", "p:1"},
      {"https://10.9.example/", "p:1"},
      {"https://a.corp.example/", "direct"},
      {"https://corp.example/", "direct"},
  }));

  INFO(url);
  CHECK(choice(from, url) == way);
}

TEST_CASE("Proxies read the environment as others do", "[http][proxy]") {
  CHECK(choice(*proxies({}), "https://a/") == "direct");
  CHECK(choice(*proxies({{"https_proxy", "http://a:1"}, {"HTTPS_PROXY", "http://b:1"}}),
               "https://x/") == "a:1");
  CHECK(choice(*proxies({{"HTTP_PROXY", "http://a:1"}, {"REQUEST_METHOD", "GET"}}), "http://x/") ==
        "direct");
  CHECK(choice(*proxies({{"HTTPS_PROXY", "http://a:1"}, {"NO_PROXY", "*"}}), "https://x/") ==
        "direct");
  auto const login = *proxies({{"HTTPS_PROXY", "http://me:s3:cret@a:1"}});
  CHECK(login.https->username == "me");
  CHECK(login.https->password == "s3:cret");
}

TEST_CASE("Proxies that cannot be used are refused without showing their secrets",
          "[http][proxy][error]") {
  for (auto const* text :
       {"socks5://u:secret@a:1", "https://u:secret@a:1", "http://u:secret@a:x"}) {
    auto const from = proxies({{"HTTPS_PROXY", text}});

    REQUIRE_FALSE(from.has_value());
    CHECK_THAT(from.error().message(),
               !Catch::Contains("secret") && Catch::Contains("HTTPS_PROXY"));
  }
}

}  // namespace proxy_test
}  // namespace erofs_oci
