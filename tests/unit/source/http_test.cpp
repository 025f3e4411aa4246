// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/source/http.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/testing/fake_transport.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace http_test {

using namespace std::chrono_literals;
using testing::FakeReply;
using testing::FakeTransport;
using testing::header_of;
using testing::serve;
using FakeHttp = BasicHttp<FakeTransport>;

static_assert(RandomAccessSource<FakeHttp>);

Bytes pattern(std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
  return bytes;
}

Bytes const content = pattern(10'000);

/// A server of `content` whose every answer to a read, after the first request, `change` spoils.
FakeTransport spoiled(std::function<void(FakeReply&, HttpRequest const&, std::size_t)> change) {
  return FakeTransport([change = std::move(change)](HttpRequest const& request, std::size_t n) {
    auto reply = serve(request, content);
    if (n > 0) change(reply, request, n);
    return reply;
  });
}

TEST_CASE("BasicHttp obeys the laws of sources", "[source][http][property]") {
  rc::prop("for all bytes, over a correct server and one that ignores ranges", [](bool ranges) {
    auto const bytes = *testing::any_bytes();
    auto const transport = FakeTransport([&](HttpRequest const& request, std::size_t) {
      if (ranges) return serve(request, bytes);
      return FakeReply{200, {{"Content-Length", std::to_string(bytes.size())}}, bytes};
    });

    auto source = FakeHttp::open("http://a/x", {}, transport);

    RC_ASSERT(source.has_value());
    testing::obeys_laws(AnySource(*std::move(source)), bytes);
  });
}

TEST_CASE("A read is one request for exactly its bytes", "[source][http]") {
  auto const transport = spoiled([](FakeReply&, HttpRequest const&, std::size_t) {});
  auto const source = *FakeHttp::open("http://a/x?sig=%2F", {}, transport);
  Bytes out(300);

  auto const n = source.read_at(9'800, out);

  CHECK(n == std::size_t{200});
  CHECK(std::ranges::equal(std::span(out).first(200), std::span(content).last(200)));
  auto const requests = transport.requests();
  REQUIRE(requests.size() == 2);
  CHECK(requests[1].method == HttpMethod::get);
  CHECK(requests[1].url.target == "/x?sig=%2F");
  CHECK(header_of(requests[1], "Range") == "bytes=9800-9999");
  CHECK(header_of(requests[1], "Accept-Encoding") == "identity");
  CHECK(source.read_at(10'000, out) == std::size_t{0});
  CHECK(source.read_at(std::uint64_t(-1), out) == std::size_t{0});
  CHECK(transport.requests().size() == 2);
  CHECK(is_remote(source));
}

/// What a spoiled answer to a read of 1000 bytes at offset 2000 must lead to.
struct Row {
  std::string name;
  std::function<void(FakeReply&, HttpRequest const&, std::size_t)> change;
  std::optional<Errc> error;  // none: the read succeeds all the same
  std::size_t requests = 1;
};

std::vector<Row> const rows = {
    {"200 to a range request",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r = {200, {{"Content-Length", "10000"}}, content};
     },
     std::nullopt},
    {"200 without a length",
     [](FakeReply& r, HttpRequest const&, std::size_t) { r = {200, {}, content}; }, std::nullopt},
    {"200 with another length",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r = {200, {{"Content-Length", "9999"}}, pattern(9'999)};
     },
     Errc::mismatch},
    {"200 that ends before the range",
     [](FakeReply& r, HttpRequest const&, std::size_t) { r = {200, {}, pattern(1'500)}; },
     Errc::unavailable},
    {"200 that breaks inside the range, then a good answer",
     [](FakeReply& r, HttpRequest const&, std::size_t n) {
       if (n == 1) {
         r = {200, {{"Content-Length", "10000"}}, content};
         r.reset_after = 2'500;
       }
     },
     std::nullopt, 2},
    {"206 that ends early goes on at the next byte",
     [](FakeReply& r, HttpRequest const& q, std::size_t n) {
       if (n == 1) r.reset_after = 300;
       if (n == 2) CHECK(header_of(q, "Range") == "bytes=2300-2999");
     },
     std::nullopt, 2},
    {"206 of a shorter range goes on at the next byte",
     [](FakeReply& r, HttpRequest const&, std::size_t n) {
       if (n == 1) {
         r.headers = {{"Content-Range", "bytes 2000-2399/10000"}};
         r.body.resize(400);
       }
     },
     std::nullopt, 2},
    {"206 without a body", [](FakeReply& r, HttpRequest const&, std::size_t) { r.body.clear(); },
     Errc::unavailable},
    {"206 that always brings one byte",
     [](FakeReply& r, HttpRequest const&, std::size_t) { r.reset_after = 1; }, Errc::unavailable,
     10},
    {"206 with a longer body than it says",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r.headers.pop_back();
       r.body.resize(100'000);
     },
     Errc::protocol},
    {"206 with a longer Content-Length than it says",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r.headers[1].value = "100000";
       r.body.resize(100'000);
     },
     Errc::protocol},
    {"206 of a longer range than asked",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r.headers = {{"Content-Range", "bytes 2000-9999/10000"}};
       r.body = to_bytes(std::span(content).subspan(2'000));
     },
     std::nullopt},
    {"206 of another range",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r.headers[0].value = "bytes 2001-3000/10000";
     },
     Errc::protocol},
    {"206 of a range that begins before",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r.headers[0].value = "bytes 1999-2998/10000";
     },
     Errc::protocol},
    {"206 with another total",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r.headers[0].value = "bytes 2000-2999/10001";
     },
     Errc::mismatch},
    {"206 with an unknown total",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r.headers[0].value = "bytes 2000-2999/*";
     },
     Errc::protocol},
    {"206 without Content-Range",
     [](FakeReply& r, HttpRequest const&, std::size_t) { r.headers.erase(r.headers.begin()); },
     Errc::protocol},
    {"206 in several parts",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r.headers = {{"Content-Type", "multipart/byteranges; boundary=x"}};
     },
     Errc::protocol},
    {"206 in gzip",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r.headers.push_back({"content-encoding", "gzip"});
     },
     Errc::protocol},
    {"206 that says identity",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r.headers.push_back({"Content-Encoding", "identity"});
     },
     std::nullopt},
    {"200 in gzip",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r = {200, {{"Content-Encoding", "gzip"}}, content};
     },
     Errc::protocol},
    {"416 inside the object",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r = {416, {{"Content-Range", "bytes */10000"}}};
     },
     Errc::protocol},
    {"416 since the object shrank",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r = {416, {{"Content-Range", "bytes */1000"}}};
     },
     Errc::mismatch},
    {"204", [](FakeReply& r, HttpRequest const&, std::size_t) { r = {204}; }, Errc::protocol},
    {"401", [](FakeReply& r, HttpRequest const&, std::size_t) { r = {401}; }, Errc::unauthorized},
    {"403", [](FakeReply& r, HttpRequest const&, std::size_t) { r = {403}; }, Errc::unauthorized},
    {"404", [](FakeReply& r, HttpRequest const&, std::size_t) { r = {404}; }, Errc::not_found},
    {"429", [](FakeReply& r, HttpRequest const&, std::size_t) { r = {429}; }, Errc::unavailable},
    {"500", [](FakeReply& r, HttpRequest const&, std::size_t) { r = {500}; }, Errc::unavailable},
    {"a broken connection",
     [](FakeReply& r, HttpRequest const&, std::size_t) {
       r.error = Error{Errc::unavailable, "connection refused"};
     },
     Errc::unavailable},
    {"a deadline",
     [](FakeReply& r, HttpRequest const&, std::size_t) { r.error = Error{Errc::timed_out, ""}; },
     Errc::timed_out},
    {"a redirect to http",
     [](FakeReply& r, HttpRequest const&, std::size_t) { r = {302, {{"Location", "http://a/x"}}}; },
     Errc::protocol},
};

TEST_CASE("Every answer to a read is the right bytes or an error", "[source][http][error]") {
  for (auto const& row : rows) {
    auto const transport = spoiled(row.change);
    auto const source = *FakeHttp::open("https://a/x?sig=secret", {}, transport);
    auto const guard = std::byte{0xEE};
    Bytes out(1'000 + 64, guard);

    auto const n = source.read_at(2'000, std::span(out).first(1'000));

    INFO(row.name << ": " << (n ? "success" : n.error().message()));
    CHECK(std::ranges::all_of(std::span(out).last(64), [=](auto b) { return b == guard; }));
    CHECK(transport.requests().size() == row.requests + 1);
    if (row.error) {
      REQUIRE_FALSE(n.has_value());
      CHECK(n.error().code == *row.error);
      CHECK_THAT(n.error().message(),
                 Catch::Contains("https://a/x: ") && !Catch::Contains("secret"));
      CHECK_THAT(n.error().message(), Catch::Contains("bytes=2"));
    } else {
      REQUIRE(n == std::size_t{1'000});
      CHECK(std::ranges::equal(std::span(out).first(1'000),
                               std::span(content).subspan(2'000, 1'000)));
    }
  }
}

TEST_CASE("Retry-After reaches the caller", "[source][http][error]") {
  auto const transport = spoiled(
      [](FakeReply& r, HttpRequest const&, std::size_t) { r = {503, {{"Retry-After", "3"}}}; });
  auto const source = *FakeHttp::open("http://a/x", {}, transport);
  Bytes out(10);

  auto const n = source.read_at(0, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().retry_after == 3s);
}

TEST_CASE("A changed ETag is an error, a weak one says nothing", "[source][http][error]") {
  for (auto const weak : {false, true}) {
    auto const transport = FakeTransport([=](HttpRequest const& request, std::size_t n) {
      auto reply = serve(request, content);
      reply.headers.push_back({"ETag", (weak ? "W/\"" : "\"") + std::to_string(n) + '"'});
      return reply;
    });
    auto const source = *FakeHttp::open("http://a/x", {}, transport);
    Bytes out(10);

    auto const n = source.read_at(0, out);

    CHECK(n.has_value() == weak);
    if (!n) CHECK(n.error().code == Errc::mismatch);
  }
}

TEST_CASE("open learns the size from whatever the server offers", "[source][http]") {
  struct Case {
    FakeReply reply;
    std::optional<std::uint64_t> size;
  };
  auto const cases = std::vector<Case>{
      {{206, {{"Content-Range", "bytes 0-0/77"}}, Bytes(1)}, 77},
      {{416, {{"Content-Range", "bytes */0"}}}, 0},
      {{200, {{"Content-Length", "5"}}, Bytes(5)}, 5},
      {{200, {}, Bytes(5)}, std::nullopt},
      {{206, {{"Content-Range", "bytes 0-0/*"}}, Bytes(1)}, std::nullopt},
      {{206, {}, Bytes(1)}, std::nullopt},
      {{416, {}}, std::nullopt},
      {{404, {}}, std::nullopt},
      {{500, {}}, std::nullopt},
  };
  for (auto const& [reply, size] : cases) {
    auto const source = FakeHttp::open(
        "http://a/", {}, FakeTransport([&](HttpRequest const&, std::size_t) { return reply; }));

    INFO(reply.status);
    REQUIRE(source.has_value() == size.has_value());
    if (size) CHECK(source->size() == *size);
  }
  CHECK_FALSE(FakeHttp::open("nonsense", {}, spoiled({})).has_value());
}

/// https://a/x redirects to https://cdn/N, and each of those works `uses` times.
FakeTransport redirecting(std::size_t uses, int expired_status) {
  auto const issued = std::make_shared<std::pair<int, std::size_t>>(0, 0);
  return FakeTransport([=](HttpRequest const& request, std::size_t) {
    if (request.url.host == "a") {
      CHECK(header_of(request, "Authorization") == "Bearer x");
      issued->second = 0;
      return FakeReply{307,
                       {{"Location", "https://cdn/" + std::to_string(++issued->first) + "?s"}}};
    }
    CHECK(header_of(request, "Authorization").empty());
    if (++issued->second > uses) return FakeReply{expired_status};
    return serve(request, content);
  });
}

TEST_CASE("The end of a redirect is remembered until it expires", "[source][http]") {
  for (auto const status : {400, 401, 403, 410}) {
    auto const transport = redirecting(3, status);
    HttpOptions options;
    options.headers = {{"Authorization", "Bearer x"}};
    auto const source = *FakeHttp::open("https://a/x", options, transport);
    Bytes out(10);

    for (int i = 0; i < 4; ++i) REQUIRE(source.read_at(5, out) == std::size_t{10});

    std::string hosts;
    for (auto const& request : transport.requests()) hosts += request.url.host + " ";
    CHECK(hosts == "a cdn cdn cdn cdn a cdn cdn ");
  }
}

TEST_CASE("A redirect target that fails otherwise is an error, then forgotten",
          "[source][http][error]") {
  auto const transport = redirecting(1, 503);
  HttpOptions options;
  options.headers = {{"Authorization", "Bearer x"}};
  auto const source = *FakeHttp::open("https://a/x", options, transport);
  Bytes out(10);

  CHECK(source.read_at(5, out).error().code == Errc::unavailable);
  CHECK(source.read_at(5, out) == std::size_t{10});
}

TEST_CASE("A stream is one request however long, and ends when the sink has enough",
          "[source][http]") {
  auto const transport = spoiled([](FakeReply&, HttpRequest const&, std::size_t) {});
  auto const source = *FakeHttp::open("http://a/x", {}, transport);
  Bytes got;
  auto const take = [&](std::span<std::byte const> bytes) {
    got.insert(got.end(), bytes.begin(), bytes.end());
    return got.size() < 3'000;
  };

  CHECK(source.stream(100, 1'000'000, take).has_value());

  CHECK(got == to_bytes(std::span(content).subspan(100, 3'000)));
  CHECK(transport.requests().size() == 2);
  CHECK(header_of(transport.requests()[1], "Range") == "bytes=100-9999");
}

TEST_CASE("Each request carries the deadline of the whole call", "[source][http]") {
  ManualClock clock;
  auto const transport = spoiled([=](FakeReply& r, HttpRequest const&, std::size_t n) {
    clock.sleep(2s);
    if (n < 3) r.reset_after = 1;
  });
  auto const source =
      *BasicHttp<FakeTransport, ManualClock>::open("http://a/x", {}, transport, clock);
  Bytes out(10);

  REQUIRE(source.read_at(0, out).has_value());

  for (auto const& request : transport.requests()) {
    CHECK(request.deadline == std::chrono::steady_clock::time_point(30s));
  }
}

}  // namespace http_test
}  // namespace erofs_oci
