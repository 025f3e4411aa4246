// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/blob.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/testing/fake_transport.hpp>
#include <erofs_oci/testing/laws.hpp>

namespace erofs_oci {
namespace blob_test {

using namespace std::chrono_literals;
using testing::FakeReply;
using testing::FakeTransport;
using testing::header_of;
using testing::serve;
using Session = BasicSession<FakeTransport, ManualClock>;
using Blob = BasicOciBlob<FakeTransport, ManualClock>;

Bytes const content = [] {
  Bytes bytes(10'000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
  return bytes;
}();
auto const digest = *Digest::parse("sha256:" + std::string(64, 'a'));

Blob blob_over(FakeTransport const& transport, std::vector<std::string> const& hosts = {"r"},
               ManualClock const& clock = {}, std::uint64_t size = content.size()) {
  std::vector<Session> sessions;
  for (auto const& host : hosts) {
    sessions.emplace_back(transport, clock, *RegistryHost::parse(host), "", "n/m",
                          CredentialLookup(), HttpLimits());
  }
  return Blob(std::move(sessions), digest, size, {}, clock);
}

std::string hosts_of(FakeTransport const& transport) {
  std::string hosts;
  for (auto const& request : transport.requests()) hosts += request.url.host + " ";
  return hosts;
}

TEST_CASE("BasicOciBlob obeys the laws of sources", "[oci][blob][property]") {
  rc::prop("for all bytes", [] {
    auto const bytes = *testing::any_bytes();
    auto const transport = FakeTransport(
        [&](HttpRequest const& request, std::size_t) { return serve(request, bytes); });

    auto blob = blob_over(transport, {"r"}, {}, bytes.size());

    testing::obeys_laws(AnySource(std::move(blob)), bytes);
  });
}

TEST_CASE("A read is one request for the blob's range", "[oci][blob]") {
  auto const transport = FakeTransport(
      [](HttpRequest const& request, std::size_t) { return serve(request, content); });
  auto const blob = blob_over(transport);
  Bytes out(100);

  CHECK(blob.read_at(9'950, out) == std::size_t{50});

  REQUIRE(transport.requests().size() == 1);
  auto const request = transport.requests()[0];
  CHECK(request.url.to_string() == "https://r/v2/n/m/blobs/" + digest.to_string());
  CHECK(header_of(request, "Range") == "bytes=9950-9999");
  CHECK(header_of(request, "Accept-Encoding") == "identity");
  CHECK(is_remote(blob));
  CHECK(describe(blob) == "r/n/m@" + digest.to_string());
}

TEST_CASE("A registry that disagrees with the manifest's size is in error", "[oci][blob][error]") {
  auto const transport = FakeTransport(
      [](HttpRequest const& request, std::size_t) { return serve(request, content); });
  auto const blob = blob_over(transport, {"r"}, {}, content.size() + 1);
  Bytes out(100);

  auto const n = blob.read_at(0, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::mismatch);
  CHECK_THAT(n.error().message(), Catch::Contains("r/n/m@sha256:aaa") &&
                                      Catch::Contains("bytes=0-99") && Catch::Contains("10000"));
}

/// A registry that wants tokens, of which each is good for `uses` requests, and a token server.
class TokenRegistry {
 public:
  /// @param refusal  the answer to a token that has expired
  explicit TokenRegistry(int uses, FakeReply refusal = {401,
                                                        {{"WWW-Authenticate",
                                                          R"(Bearer realm="https://auth/t")"}}})
      : uses_(uses), refusal_(std::move(refusal)) {}

  FakeReply operator()(HttpRequest const& request) {
    std::unique_lock lock(mutex_);
    if (request.url.host == "auth") {
      left_ = uses_;
      FakeReply reply;
      reply.body = to_bytes(R"({"token":"t)" + std::to_string(++issued_) + R"("})");
      return reply;
    }
    if (issued_ == 0 || left_ == 0 ||
        header_of(request, "Authorization") != "Bearer t" + std::to_string(issued_)) {
      ++refusals_;
      auto const has_expired = issued_ > 0;
      lock.unlock();
      std::this_thread::sleep_for(5ms);
      if (has_expired) return refusal_;
      return FakeReply{401, {{"WWW-Authenticate", R"(Bearer realm="https://auth/t")"}}};
    }
    --left_;
    return serve(request, content);
  }

  int issued() const { return issued_; }
  int refusals() const { return refusals_; }

 private:
  std::mutex mutex_;
  int uses_;
  FakeReply refusal_;
  int left_ = 0;
  int issued_ = 0;
  int refusals_ = 0;
};

TEST_CASE("Eight threads whose token expires make one renewal", "[oci][blob]") {
  TokenRegistry registry(1'000'000);
  auto const transport =
      FakeTransport([&](HttpRequest const& request, std::size_t) { return registry(request); });
  auto const blob = blob_over(transport);
  std::atomic<int> good{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        Bytes out(64);
        for (std::uint64_t k = 0; k < 10; ++k) {
          auto const n = blob.read_at(k * 64, out);
          good += n && std::ranges::equal(out, std::span(content).subspan(k * 64, 64)) ? 1 : 0;
        }
      });
    }
  }

  CHECK(good == 80);
  CHECK(registry.issued() == 1);
  CHECK(registry.refusals() >= 1);
}

TEST_CASE("A token that expires between reads is renewed once for each refusal", "[oci][blob]") {
  FakeReply const with_challenge{401, {{"WWW-Authenticate", R"(Bearer realm="https://auth/t")"}}};
  for (auto const& refusal : {with_challenge, FakeReply{401}, FakeReply{403}}) {
    TokenRegistry registry(3, refusal);
    auto const transport =
        FakeTransport([&](HttpRequest const& request, std::size_t) { return registry(request); });
    auto const blob = blob_over(transport);
    Bytes out(64);

    for (int i = 0; i < 9; ++i) REQUIRE(blob.read_at(0, out) == std::size_t{64});

    CHECK(registry.issued() == 3);
    CHECK(registry.refusals() == 3);
  }
}

TEST_CASE("A registry that refuses the new token too is an error, not a loop",
          "[oci][blob][error]") {
  TokenRegistry registry(0);
  auto const transport =
      FakeTransport([&](HttpRequest const& request, std::size_t) { return registry(request); });
  Bytes out(64);

  auto const n = blob_over(transport).read_at(0, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::unauthorized);
  CHECK(transport.requests().size() == 3);
}

TEST_CASE("A 403 is answered with a login only if there is something to answer",
          "[oci][blob][error]") {
  auto const requests = [](FakeReply const& refusal) {
    auto const transport = FakeTransport([&](HttpRequest const&, std::size_t) { return refusal; });
    Bytes out(64);
    CHECK(blob_over(transport).read_at(0, out).error().code == Errc::unauthorized);
    return hosts_of(transport);
  };

  CHECK(requests({403}) == "r ");
  CHECK(requests({403, {{"WWW-Authenticate", R"(Bearer realm="https://auth/t")"}}}) == "r auth ");
}

TEST_CASE("A signed URL is used again until it expires, without the registry's token",
          "[oci][blob]") {
  for (auto const status : {400, 401, 403, 410}) {
    TokenRegistry registry(1'000);
    int uses = 0;
    auto const transport = FakeTransport([&](HttpRequest const& request, std::size_t) {
      if (request.url.host == "cdn") {
        CHECK(header_of(request, "Authorization").empty());
        CHECK(request.url.target == "/b?sig=%2F%2b");
        CHECK(request.named_by == "r");  // also when the target is remembered
        return ++uses % 4 == 0 ? FakeReply{status} : serve(request, content);
      }
      auto reply = registry(request);
      if (reply.status == 206) reply = {307, {{"Location", "https://cdn/b?sig=%2F%2b"}}};
      return reply;
    });
    auto const blob = blob_over(transport);
    Bytes out(64);

    for (int i = 0; i < 4; ++i) REQUIRE(blob.read_at(0, out) == std::size_t{64});

    INFO(status);
    CHECK(hosts_of(transport) == "r auth r cdn cdn cdn cdn r cdn ");
  }
}

TEST_CASE("A redirect on the registry's own host keeps the login and is asked for each time",
          "[oci][blob]") {
  TokenRegistry registry(1'000);
  auto const transport = FakeTransport([&](HttpRequest const& request, std::size_t) {
    auto reply = registry(request);
    if (reply.status == 206 && request.url.target.starts_with("/v2/")) {
      reply = {307, {{"Location", "/storage/x"}}};
    }
    return reply;
  });
  auto const blob = blob_over(transport);
  Bytes out(64);

  for (int i = 0; i < 2; ++i) REQUIRE(blob.read_at(0, out) == std::size_t{64});

  CHECK(hosts_of(transport) == "r auth r r r r ");
}

TEST_CASE("Mirrors are asked first and left alone after a failure", "[oci][blob]") {
  ManualClock clock;
  std::atomic<bool> broken = false;
  auto const transport = FakeTransport([&](HttpRequest const& request, std::size_t) {
    if (request.url.host == "m1") return FakeReply{404};
    if (request.url.host == "m2" && broken) return FakeReply{503};
    return serve(request, content);
  });
  auto const blob = blob_over(transport, {"m1", "m2", "r"}, clock);
  Bytes out(64);

  REQUIRE(blob.read_at(0, out) == std::size_t{64});
  REQUIRE(blob.read_at(0, out) == std::size_t{64});
  broken = true;
  REQUIRE(blob.read_at(0, out) == std::size_t{64});
  REQUIRE(blob.read_at(0, out) == std::size_t{64});
  clock.sleep(61s);
  REQUIRE(blob.read_at(0, out) == std::size_t{64});

  CHECK(hosts_of(transport) == "m1 m2 m2 m2 r r m1 m2 r ");
}

TEST_CASE("A mirror that has something else of that name is not believed", "[oci][blob]") {
  auto const transport = FakeTransport([](HttpRequest const& request, std::size_t) {
    if (request.url.host == "m") return serve(request, std::span(content).first(5'000));
    return serve(request, content);
  });
  auto const blob = blob_over(transport, {"m", "r"});
  Bytes out(64);

  CHECK(blob.read_at(100, out) == std::size_t{64});
  CHECK(std::ranges::equal(out, std::span(content).subspan(100, 64)));
}

TEST_CASE("A failed read reports the registry's own error", "[oci][blob][error]") {
  auto const transport = FakeTransport([](HttpRequest const& request, std::size_t) {
    return FakeReply{request.url.host == "m" ? 503 : 404};
  });
  Bytes out(64);

  CHECK(blob_over(transport, {"m", "r"}).read_at(0, out).error().code == Errc::not_found);
}

TEST_CASE("A stream is one request with a time for its length", "[oci][blob]") {
  auto const transport = FakeTransport(
      [](HttpRequest const& request, std::size_t) { return serve(request, content); });
  auto const blob = blob_over(transport);
  Bytes got;

  REQUIRE(blob.stream(50, 1'000'000, [&](std::span<std::byte const> bytes) {
    got.insert(got.end(), bytes.begin(), bytes.end());
    return true;
  }));

  CHECK(std::ranges::equal(got, std::span(content).subspan(50)));
  REQUIRE(transport.requests().size() == 1);
  CHECK(transport.requests()[0].deadline == std::chrono::steady_clock::time_point(30s));
  CHECK(HttpLimits().stream_total(4u << 20) == 94s);
  CHECK(HttpLimits().stream_total(~std::uint64_t()) == 30s + 720h);
}

}  // namespace blob_test
}  // namespace erofs_oci
