// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/source/url.hpp>  // first: proves that the header stands alone

#include <string>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace url_test {

TEST_CASE("Url::parse takes a URL apart and leaves its spelling alone", "[source][url]") {
  struct Case {
    std::string text, scheme, host;
    unsigned port;
    std::string target, printed;
  };
  auto const cases = std::vector<Case>{
      {"http://a", "http", "a", 80, "/", "http://a/"},
      {"HTTPS://A.Example:443/x", "https", "a.example", 443, "/x", "https://a.example/x"},
      {"http://a:8080?q", "http", "a", 8080, "/?q", "http://a:8080/?q"},
      {"http://[2001:DB8::1]:81/x", "http", "2001:db8::1", 81, "/x", "http://[2001:db8::1]:81/x"},
      {"http://a:/x#frag", "http", "a", 80, "/x", "http://a/x"},
      {"https://s3/b?X-Sig=%2Fa%2b+/=&x=%25", "https", "s3", 443, "/b?X-Sig=%2Fa%2b+/=&x=%25",
       "https://s3/b?X-Sig=%2Fa%2b+/=&x=%25"},
      {"http://a/sp ace\xc3\xa4", "http", "a", 80, "/sp%20ace%C3%A4", "http://a/sp%20ace%C3%A4"},
  };
  for (auto const& [text, scheme, host, port, target, printed] : cases) {
    auto const url = Url::parse(text);

    INFO(text);
    REQUIRE(url.has_value());
    CHECK(url->scheme == scheme);
    CHECK(url->host == host);
    CHECK(url->port == port);
    CHECK(url->target == target);
    CHECK(url->to_string() == printed);
  }
}

TEST_CASE("Url::parse refuses what it cannot ask for", "[source][url][error]") {
  auto const bad = std::vector<std::string>{"",
                                            "a",
                                            "//a",
                                            "http:/a",
                                            "http://",
                                            "http:///x",
                                            "ftp://a/",
                                            "file:///etc",
                                            "http://u@a/",
                                            "http://u:p@a/",
                                            "http://a b/",
                                            "http://a:0/",
                                            "http://a:65536/",
                                            "http://a:99999999999/",
                                            "http://a:x/",
                                            "http://[::1/",
                                            "http://[::1]x/",
                                            "http://[]/",
                                            "http://[1]/",
                                            "http://a/\r\nX: y",
                                            "http://a/\x7f",
                                            "http://a%2f/",
                                            "http://a\\b/",
                                            "http://" + std::string(254, 'a') + "/",
                                            "http://a/" + std::string(20000, 'a')};
  for (auto const& text : bad) {
    INFO(text.substr(0, 100));
    CHECK_FALSE(Url::parse(text).has_value());
  }
}

TEST_CASE("Url::resolve reads every form of Location", "[source][url]") {
  auto const base = *Url::parse("https://a.example/b/c/d?q");
  struct Case {
    std::string reference, result;
  };
  auto const cases = std::vector<Case>{
      {"http://x/y", "http://x/y"},
      {"//x/y", "https://x/y"},
      {"/y?z=http://w", "https://a.example/y?z=http://w"},
      {"g", "https://a.example/b/c/g"},
      {"./g", "https://a.example/b/c/g"},
      {"../g?x", "https://a.example/b/g?x"},
      {"../../../../g", "https://a.example/g"},
      {"..", "https://a.example/b/"},
      {"?y", "https://a.example/b/c/d?y"},
      {"", "https://a.example/b/c/d?q"},
      {"#f", "https://a.example/b/c/d?q"},
  };
  for (auto const& [reference, result] : cases) {
    auto const url = base.resolve(reference);

    INFO(reference);
    REQUIRE(url.has_value());
    CHECK(url->to_string() == result);
  }
  CHECK_FALSE(base.resolve("javascript:alert(1)").has_value());
  CHECK_FALSE(base.resolve("ftp://x/").has_value());
}

TEST_CASE("Messages do not show a URL's query", "[source][url]") {
  CHECK(Url::parse("https://s3:444/b?sig=secret")->without_query() == "https://s3:444/b");
}

TEST_CASE("Secrets stay with scheme, host and port", "[source][url]") {
  auto const url = *Url::parse("https://a.example/x");

  CHECK(url.same_origin(*Url::parse("https://A.example:443/y?z")));
  CHECK_FALSE(url.same_origin(*Url::parse("http://a.example/x")));
  CHECK_FALSE(url.same_origin(*Url::parse("https://a.example:444/x")));
  CHECK_FALSE(url.same_origin(*Url::parse("https://b.example/x")));
}

TEST_CASE("Url::parse is total and its URLs survive printing", "[source][url][property]") {
  rc::prop("any text is refused or printed as the same URL", [] {
    auto const alphabet = std::string("htps:/?#[]@.0aZ%\\ \x80");
    auto const tail = *rc::gen::container<std::string>(rc::gen::elementOf(alphabet));

    for (auto const& text : {tail, "http://" + tail, "https://a/" + tail}) {
      auto const url = Url::parse(text);

      if (!url) continue;
      RC_ASSERT(Url::parse(url->to_string()).has_value());
      RC_ASSERT(*Url::parse(url->to_string()) == *url);
    }
  });
}

}  // namespace url_test
}  // namespace erofs_oci
