// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/auth.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <string>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/oci/encoding.hpp>
#include <erofs_oci/testing/fake_transport.hpp>

namespace erofs_oci {
namespace auth_test {

using namespace std::chrono_literals;
using Parameters = std::vector<std::pair<std::string, std::string>>;

TEST_CASE("parse_challenges reads what registries send", "[oci][auth]") {
  struct Case {
    std::string text;
    std::vector<Challenge> challenges;
  };
  auto const cases = std::vector<Case>{
      {"", {}},
      {" , ,", {}},
      {"Basic", {{"basic", {}, ""}}},
      {"BASIC Realm=\"a b\"", {{"basic", {{"realm", "a b"}}, ""}}},
      {R"(Bearer realm="https://auth.docker.io/token",service="registry.docker.io",)"
       R"(scope="repository:library/nginx:pull,push")",
       {{"bearer",
         {{"realm", "https://auth.docker.io/token"},
          {"service", "registry.docker.io"},
          {"scope", "repository:library/nginx:pull,push"}},
         ""}}},
      {R"(bearer REALM = "x" , service=y,error="invalid_token")",
       {{"bearer", {{"realm", "x"}, {"service", "y"}, {"error", "invalid_token"}}, ""}}},
      {R"(Basic realm="a\"b\\c", Bearer realm="d")",
       {{"basic", {{"realm", "a\"b\\c"}}, ""}, {"bearer", {{"realm", "d"}}, ""}}},
      {"Negotiate, Basic realm=x", {{"negotiate", {}, ""}, {"basic", {{"realm", "x"}}, ""}}},
      {"Negotiate YWJj==, Basic realm=x",
       {{"negotiate", {}, "YWJj=="}, {"basic", {{"realm", "x"}}, ""}}},
      {R"(Basic realm="")", {{"basic", {{"realm", ""}}, ""}}},
  };
  for (auto const& [text, challenges] : cases) {
    auto const parsed = parse_challenges(text);

    INFO(text);
    REQUIRE(parsed.has_value());
    CHECK(*parsed == challenges);
  }
}

TEST_CASE("parse_challenges refuses what is malformed", "[oci][auth][error]") {
  for (auto const* text :
       {"=", "=x", "\"Basic\"", "Basic realm=\"x", "Basic realm=\"x\\", "Basic realm=\"x\" y",
        "Basic realm=\"x\r\nX: y\"", "Basic a=b c=d", "Bearer (x)", "Bearer realm=\"a\"b"}) {
    INFO(text);
    CHECK_FALSE(parse_challenges(text).has_value());
  }
}

TEST_CASE("One malformed header does not hide another", "[oci][auth]") {
  auto const found = challenges_of({401,
                                    {{"www-authenticate", "Bearer realm=\"x"},
                                     {"WWW-Authenticate", "Basic realm=x"},
                                     {"X", "Digest a=b"},
                                     {"Www-Authenticate", "Bearer realm=y"}}});

  REQUIRE(found.size() == 2);
  CHECK(found[0].scheme == "basic");
  CHECK(found[1].find("realm") == "y");
}

TEST_CASE("Challenges survive printing", "[oci][auth][property]") {
  rc::prop("for all challenges, parse(encode(x)) == x", [] {
    auto const name = [] {
      return *rc::gen::nonEmpty(
          rc::gen::container<std::string>(rc::gen::elementOf(std::string("abcz09-_"))));
    };
    auto const value = [] {
      return *rc::gen::container<std::string>(rc::gen::inRange(' ', '\x7f'));
    };
    Challenge challenge{name(), {}, {}};
    for (auto n = *rc::gen::inRange(0, 4); n > 0; --n) {
      challenge.parameters.emplace_back(name(), value());
    }

    auto const parsed = parse_challenges(encode(challenge));

    RC_ASSERT(parsed.has_value());
    RC_ASSERT(*parsed == std::vector<Challenge>{challenge});
  });
}

TEST_CASE("parse_token takes either name, and no token that could break a header",
          "[oci][auth][error]") {
  auto const token = [](std::string_view text) { return parse_token(as_bytes(text)); };

  CHECK(token(R"({"token":"abc"})")->text == "abc");
  CHECK(token(R"({"token":"abc"})")->lifetime == 60s);
  CHECK(token(R"({"access_token":"abc","expires_in":300})")->lifetime == 300s);
  CHECK(token(R"({"token":"","access_token":"abc","expires_in":0})")->lifetime == 60s);
  CHECK(token(R"({"token":"a","expires_in":-5})")->lifetime == 60s);
  CHECK(token(R"({"token":"a","expires_in":9000000000000000000})")->lifetime == 24h);
  for (auto const* text : {"", "{}", "[]", R"({"token":7})", R"({"token":"a\r\nX: y"})",
                           R"({"token":"a b"})", R"({"token":"\u00e4"})"}) {
    INFO(text);
    CHECK_FALSE(token(text).has_value());
  }
}

Challenge bearer(Parameters const& parameters) {
  return {"bearer", parameters, {}};
}

auto const secure = *Url::parse("https://r.example/");
auto const plain = *Url::parse("http://r.example/");

TEST_CASE("token_request encodes service and scope, and keeps the realm's own query",
          "[oci][auth]") {
  auto const request =
      token_request(bearer({{"realm", "https://a.example/t?x=1"}, {"service", "a&b c"}}), secure,
                    "n/m", Credentials{"me", "pa:ss", {}, {}});

  REQUIRE(request.has_value());
  CHECK(request->method == HttpMethod::get);
  CHECK(request->url.to_string() ==
        "https://a.example/t?x=1&service=a%26b%20c&scope=repository%3An%2Fm%3Apull");
  CHECK(testing::header_of(*request, "Authorization") == "Basic " + base64_encode("me:pa:ss"));
  CHECK(request->named_by == secure.host);
}

TEST_CASE("token_request may be anonymous", "[oci][auth]") {
  auto const request =
      token_request(bearer({{"realm", "http://a.example"}}), plain, "n", std::nullopt);

  REQUIRE(request.has_value());
  CHECK(request->url.to_string() == "http://a.example/?scope=repository%3An%3Apull");
  CHECK(testing::header_of(*request, "Authorization").empty());
}

TEST_CASE("A challenge widens no token: it asks to pull from the repository alone", "[oci][auth]") {
  struct Row {
    char const* offered;
    char const* asked;
  };
  for (auto const& row : {
           Row{"", "repository:n/m:pull"},
           Row{"repository:n/m:pull", "repository:n/m:pull"},
           Row{"repository:n/m:pull,push", "repository:n/m:pull"},
           Row{"repository:n/m:*", "repository:n/m:pull"},
           Row{"repository:proxy/n/m:pull", "repository:proxy/n/m:pull"},
           Row{"registry:catalog:* repository:proxy/n/m:push", "repository:proxy/n/m:pull"},
           Row{"repository:me/private:pull,push", "repository:n/m:pull"},
           Row{"repository:xn/m:pull", "repository:n/m:pull"},
           Row{"repository:/n/m", "repository:n/m:pull"},
           Row{"*", "repository:n/m:pull"},
           Row{" : :: repository: repository::", "repository:n/m:pull"},
       }) {
    INFO(row.offered);
    auto const request = token_request(
        bearer({{"realm", "https://a.example/t"}, {"scope", row.offered}}), secure, "n/m", {});
    REQUIRE(request.has_value());
    CHECK(request->url.target == "/t?scope=" + percent_encode(row.asked));
  }
}

TEST_CASE("A token to push with is asked for by whoever pushes", "[oci][auth]") {
  LoginScope const scope{.push = true, .also_pull = {"n/other"}};
  auto const request =
      token_request(bearer({{"realm", "https://a.example/t"}}), secure, "n/m", std::nullopt, scope);

  REQUIRE(request.has_value());
  CHECK(request->url.target == "/t?scope=" + percent_encode("repository:n/m:pull,push") +
                                   "&scope=" + percent_encode("repository:n/other:pull"));
}

TEST_CASE("A relative realm is the registry's own", "[oci][auth]") {
  for (auto const& [realm, url] : {std::pair("/auth/token", "https://r.example:5000/auth/token"),
                                   std::pair("auth", "https://r.example:5000/auth"),
                                   std::pair("//a.example/t", "https://a.example/t")}) {
    INFO(realm);
    auto const request =
        token_request(bearer({{"realm", realm}}), *Url::parse("https://r.example:5000"), "n", {});
    REQUIRE(request.has_value());
    CHECK(request->url.without_query() == url);
  }
}

TEST_CASE("token_request posts an identity token as a form", "[oci][auth]") {
  Credentials credentials;
  credentials.identity_token = "id+en/tity=";

  auto const request = token_request(bearer({{"realm", "https://a.example/t"}, {"service", "s"}}),
                                     secure, "x", credentials);

  REQUIRE(request.has_value());
  CHECK(request->method == HttpMethod::post);
  CHECK(request->url.to_string() == "https://a.example/t");
  CHECK(request->body ==
        "grant_type=refresh_token&service=s&scope=repository%3Ax%3Apull&client_id=erofs_oci&"
        "refresh_token=id%2Ben%2Ftity%3D");
}

TEST_CASE("token_request refuses realms that would leak a login", "[oci][auth][error]") {
  for (auto const* realm : {"http://a.example/t", "ftp://a/", "", "https://u:p@a/"}) {
    INFO(realm);
    CHECK_FALSE(token_request(bearer({{"realm", realm}}), secure, "x", {}).has_value());
  }
  CHECK_FALSE(token_request(bearer({}), secure, "x", {}).has_value());
}

}  // namespace auth_test
}  // namespace erofs_oci
