// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/source/http_response.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/testing/fake_transport.hpp>

namespace erofs_oci {
namespace http_response_test {

using namespace std::chrono_literals;
using testing::FakeReply;
using testing::FakeTransport;
using testing::header_of;

TEST_CASE("Content-Range is read only in full", "[source][http]") {
  auto const range = ContentRange::parse("bytes 2-5/10");
  REQUIRE(range.has_value());
  CHECK(range->bytes == std::pair<std::uint64_t, std::uint64_t>(2, 5));
  CHECK(range->total == 10);
  CHECK(ContentRange::parse("Bytes 0-0/1").has_value());
  CHECK(ContentRange::parse("bytes */7")->total == 7);

  for (auto const* text :
       {"", "bytes", "bytes 2-5", "bytes 2-5/", "bytes 2-5/*", "bytes 5-2/10", "bytes 2-10/10",
        "bytes -5/10", "bytes 2-/10", "bytes=2-5/10", "bytes 2-5/10x", "items 2-5/10",
        "bytes 99999999999999999999-5/10", "bytes 2-5/99999999999999999999", "bytes +2-5/10"}) {
    INFO(text);
    CHECK_FALSE(ContentRange::parse(text).has_value());
  }
}

TEST_CASE("Content-Range survives printing", "[source][http][property]") {
  rc::prop("for all ranges inside all totals", [](std::uint64_t a, std::uint64_t b) {
    auto const total = *rc::gen::inRange<std::uint64_t>(1, std::uint64_t{1} << 63);
    auto const last = b % total;
    auto const first = a % (last + 1);

    auto const range = ContentRange::parse("bytes " + std::to_string(first) + "-" +
                                           std::to_string(last) + "/" + std::to_string(total));

    RC_ASSERT(range.has_value());
    RC_ASSERT(*range == (ContentRange{std::pair(first, last), total}));
  });
}

TEST_CASE("Retry-After is seconds or a date", "[source][http]") {
  auto const now = std::chrono::system_clock::time_point(784111777s);  // RFC 9110's example

  CHECK(parse_retry_after("120", now) == 120s);
  CHECK(parse_retry_after(" 0 ", now) == 0s);
  CHECK(parse_retry_after("999999999999", now) == 24h);
  CHECK(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now) == 0s);
  CHECK(parse_retry_after("Sun, 06 Nov 1994 08:50:07 GMT", now) == 30s);
  CHECK(parse_retry_after("Sat, 05 Nov 1994 08:50:07 GMT", now) == 0s);
  CHECK(parse_retry_after("Sun, 06 Nov 2094 08:50:07 GMT", now) == 24h);
  for (auto const* text :
       {"", "soon", "-1", "1.5", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 anF 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"}) {
    INFO(text);
    CHECK_FALSE(parse_retry_after(text, now).has_value());
  }
}

TEST_CASE("Statuses become errors that a caller can act on", "[source][http][error]") {
  struct Case {
    int status;
    Errc code;
  };
  for (auto const& [status, code] : std::vector<Case>{{408, Errc::unavailable},
                                                      {429, Errc::unavailable},
                                                      {500, Errc::unavailable},
                                                      {502, Errc::unavailable},
                                                      {503, Errc::unavailable},
                                                      {504, Errc::unavailable},
                                                      {401, Errc::unauthorized},
                                                      {403, Errc::unauthorized},
                                                      {404, Errc::not_found},
                                                      {410, Errc::not_found},
                                                      {400, Errc::protocol},
                                                      {418, Errc::protocol},
                                                      {501, Errc::protocol},
                                                      {304, Errc::protocol}}) {
    auto const error = status_error({status, {{"retry-after", "7"}}});

    INFO(status);
    REQUIRE(error.has_value());
    CHECK(error->code == code);
    CHECK(error->retry_after.has_value() == (code == Errc::unavailable));
  }
  CHECK_FALSE(status_error({206, {}}).has_value());
}

HttpRequest request_to(std::string const& url) {
  HttpRequest request;
  request.url = *Url::parse(url);
  request.headers = {{"authorization", "Bearer x"}, {"COOKIE", "y"}, {"Range", "bytes=0-0"}};
  request.headers.push_back({.name = "X-Key", .value = "z", .secret = true});
  return request;
}

TEST_CASE("Redirects keep secrets on their own scheme, host and port", "[source][http]") {
  struct Case {
    std::string from, location;
    bool kept;
  };
  for (auto const& [from, location, kept] :
       std::vector<Case>{{"https://a/x", "/y", true},
                         {"https://a/x", "https://a:443/y", true},
                         {"https://a/x", "https://b/y", false},
                         {"https://a/x", "https://a:444/y", false},
                         {"https://a/x", "//a.evil/y", false},
                         {"http://a/x", "https://a/y", false}}) {
    auto request = request_to(from);

    auto const ok = redirect(request, {307, {{"Location", location}}});

    INFO(from << " -> " << location);
    REQUIRE(ok.has_value());
    CHECK(header_of(request, "Authorization").empty() == !kept);
    CHECK(header_of(request, "Cookie").empty() == !kept);
    CHECK(header_of(request, "X-Key").empty() == !kept);
    CHECK(header_of(request, "Range") == "bytes=0-0");
  }
}

TEST_CASE("Secrets do not come back when a redirect returns to the first host",
          "[source][http][error]") {
  auto const transport = FakeTransport([](HttpRequest const& request, std::size_t n) {
    FakeReply reply;
    if (n == 0) return FakeReply{302, {{"Location", "https://b/"}}};
    if (n == 1) return FakeReply{302, {{"Location", "https://a/again"}}};
    CHECK(request.url.host == "a");
    CHECK(header_of(request, "Authorization").empty());
    return reply;
  });
  auto request = request_to("https://a/x");

  auto const ok = follow(
      transport, request, [](HttpHead const&) { return true; },
      [](std::span<std::byte const>) { return true; });

  CHECK(ok.has_value());
  CHECK(transport.requests().size() == 3);
}

TEST_CASE("Redirects that lead nowhere good are refused", "[source][http][error]") {
  for (auto const* location : {"http://a/y", "ftp://a/", "https://u:p@b/", "https://b/\r\nX: y"}) {
    auto request = request_to("https://a/x");

    INFO(location);
    CHECK_FALSE(redirect(request, {302, {{"Location", location}}}).has_value());
  }
  auto request = request_to("https://a/x");
  CHECK_FALSE(redirect(request, {302, {}}).has_value());
}

TEST_CASE("Redirects end after ten", "[source][http][error]") {
  for (auto const most : {10U, 11U}) {
    auto const transport = FakeTransport([most](HttpRequest const&, std::size_t n) {
      if (n < most) return FakeReply{302, {{"Location", "/" + std::to_string(n)}}};
      return FakeReply{};
    });
    auto request = request_to("http://a/x?secret");

    auto const ok = follow(
        transport, request, [](HttpHead const&) { return true; },
        [](std::span<std::byte const>) { return true; });

    CHECK(ok.has_value() == (most == 10));
    if (!ok) CHECK_THAT(ok.error().message(), Catch::Contains("too many redirects"));
    CHECK(transport.requests().size() == 11);
  }
}

TEST_CASE("A form that is posted becomes a GET after 303 but not after 307", "[source][http]") {
  for (auto const status : {301, 302, 303, 307, 308}) {
    auto request = request_to("https://a/token");
    request.method = HttpMethod::post;
    request.body = "refresh_token=x";

    REQUIRE(redirect(request, {status, {{"Location", "/y"}}}).has_value());

    INFO(status);
    CHECK((request.method == HttpMethod::post) == (status >= 307));
    CHECK(request.body.empty() == (status < 307));
  }
}

}  // namespace http_response_test
}  // namespace erofs_oci
