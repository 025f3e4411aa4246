// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/oci/authenticator.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <chrono>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/oci/encoding.hpp>
#include <erofs_oci/testing/fake_transport.hpp>

namespace erofs_oci {
namespace authenticator_test {

using namespace std::chrono_literals;
using testing::FakeReply;
using testing::FakeTransport;
using testing::header_of;
using Authenticator = BasicAuthenticator<FakeTransport, ManualClock>;

HttpHead const bearer{401,
                      {{"WWW-Authenticate", R"(Bearer realm="https://a.example/t",service="s")"}}};
HttpHead const basic{401, {{"WWW-Authenticate", R"(Basic realm="x")"}}};
auto const deadline = std::chrono::steady_clock::time_point(1h);

/// Gives "t0", "t1", … each for 100 s.
FakeTransport token_server() {
  return FakeTransport([](HttpRequest const&, std::size_t n) {
    FakeReply reply;
    reply.body = to_bytes(R"({"token":"t)" + std::to_string(n) + R"(","expires_in":100})");
    return reply;
  });
}

CredentialLookup login(Credentials const& credentials) {
  return [=](std::string const& registry, std::string const& repository) {
    CHECK(registry == "r.example:5000");
    CHECK(repository == "n/m");
    return Result<std::optional<Credentials>>(credentials);
  };
}

struct Fixture {
  explicit Fixture(FakeTransport t, CredentialLookup lookup = {})
      : transport(std::move(t)),
        authenticator(transport, clock, *Url::parse("https://r.example:5000"), "n/m",
                      std::move(lookup), {}) {}

  ManualClock clock;
  FakeTransport transport;
  Authenticator authenticator;
};

TEST_CASE("Nothing is sent until the registry refuses", "[oci][auth]") {
  Fixture f(token_server());

  CHECK(f.authenticator.authorization(deadline).value.empty());
  CHECK(f.transport.requests().empty());
}

TEST_CASE("A Bearer challenge is answered with a token of the realm", "[oci][auth]") {
  Fixture f(token_server(), login({"me", "secret", {}, {}}));

  auto const renewed = f.authenticator.renew(0, bearer, deadline);

  REQUIRE(renewed.has_value());
  CHECK(renewed->value == "Bearer t0");
  CHECK(f.authenticator.authorization(deadline).value == "Bearer t0");
  REQUIRE(f.transport.requests().size() == 1);
  auto const request = f.transport.requests()[0];
  CHECK(request.url.to_string() == "https://a.example/t?service=s&scope=repository%3An%2Fm%3Apull");
  CHECK(header_of(request, "Authorization") == "Basic " + base64_encode("me:secret"));
  CHECK(request.deadline == deadline);
}

TEST_CASE("A Basic challenge is answered with the user name on every request", "[oci][auth]") {
  Fixture f(token_server(), login({"me", "secret", {}, {}}));

  REQUIRE(f.authenticator.renew(0, basic, deadline).has_value());

  CHECK(f.authenticator.authorization(deadline).value == "Basic " + base64_encode("me:secret"));
  CHECK(f.transport.requests().empty());
}

TEST_CASE("A registry token is sent as it is, an identity token is exchanged", "[oci][auth]") {
  Fixture direct(token_server(), login({{}, {}, {}, "reg"}));
  CHECK(direct.authenticator.renew(0, bearer, deadline)->value == "Bearer reg");
  CHECK(direct.transport.requests().empty());

  Fixture exchanged(token_server(), login({{}, {}, "id", {}}));
  CHECK(exchanged.authenticator.renew(0, bearer, deadline)->value == "Bearer t0");
  CHECK(exchanged.transport.requests()[0].method == HttpMethod::post);
}

TEST_CASE("A registry token with a line break is refused", "[oci][auth][error]") {
  Fixture f(token_server(), login({{}, {}, {}, "a\r\nX: y"}));

  CHECK_FALSE(f.authenticator.renew(0, bearer, deadline).has_value());
}

TEST_CASE("Eight threads that are refused at once make one renewal", "[oci][auth]") {
  Fixture f(FakeTransport([](HttpRequest const&, std::size_t n) {
    std::this_thread::sleep_for(50ms);
    FakeReply reply;
    reply.body = to_bytes(R"({"token":"t)" + std::to_string(n) + R"("})");
    return reply;
  }));
  std::atomic<int> good{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        auto const renewed = f.authenticator.renew(0, bearer, deadline);
        good += renewed && renewed->value == "Bearer t0" ? 1 : 0;
      });
    }
  }

  CHECK(good == 8);
  CHECK(f.transport.requests().size() == 1);
}

TEST_CASE("Threads that wait for a failed renewal share its error", "[oci][auth][error]") {
  Fixture f(FakeTransport([](HttpRequest const&, std::size_t) {
    std::this_thread::sleep_for(50ms);
    return FakeReply{503, {{"Retry-After", "2"}}};
  }));
  std::atomic<int> failed{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        auto const renewed = f.authenticator.renew(0, bearer, deadline);
        failed += !renewed && renewed.error().code == Errc::unavailable &&
                          renewed.error().retry_after == 2000ms
                      ? 1
                      : 0;
      });
    }
  }

  CHECK(failed == 4);
  CHECK(f.transport.requests().size() < 4);
}

TEST_CASE("A late refusal of an old token does not renew the new one", "[oci][auth]") {
  Fixture f(token_server());
  auto const first = *f.authenticator.renew(0, bearer, deadline);
  auto const second = *f.authenticator.renew(first.generation, bearer, deadline);

  auto const late = *f.authenticator.renew(first.generation, bearer, deadline);

  CHECK(second.value == "Bearer t1");
  CHECK(late.value == "Bearer t1");
  CHECK(f.transport.requests().size() == 2);
}

TEST_CASE("A token is renewed shortly before it expires", "[oci][auth]") {
  Fixture f(token_server());
  REQUIRE(f.authenticator.renew(0, bearer, deadline).has_value());

  f.clock.sleep(74s);
  CHECK(f.authenticator.authorization(deadline).value == "Bearer t0");
  f.clock.sleep(2s);
  CHECK(f.authenticator.authorization(deadline).value == "Bearer t1");
  CHECK(f.transport.requests().size() == 2);
}

TEST_CASE("A failed early renewal keeps the token that still lives", "[oci][auth]") {
  Fixture f(FakeTransport([](HttpRequest const&, std::size_t n) {
    if (n > 0) return FakeReply{500};
    FakeReply reply;
    reply.body = to_bytes(R"({"token":"t","expires_in":100})");
    return reply;
  }));
  REQUIRE(f.authenticator.renew(0, bearer, deadline).has_value());
  f.clock.sleep(80s);

  CHECK(f.authenticator.authorization(deadline).value == "Bearer t");
  CHECK(f.authenticator.authorization(deadline).value == "Bearer t");
  CHECK(f.transport.requests().size() == 2);
}

TEST_CASE("Logins that cannot be made say why", "[oci][auth][error]") {
  struct Case {
    HttpHead refusal;
    FakeReply reply;
    Errc code;
    std::string words;
  };
  auto const body = [](char const* text) {
    FakeReply reply;
    reply.body = to_bytes(text);
    return reply;
  };
  auto huge = body("");
  huge.body.resize(2 * 1024 * 1024);
  auto const cases = std::vector<Case>{
      {{401, {}}, {}, Errc::unauthorized, "how to log in"},
      {{401, {{"WWW-Authenticate", "Negotiate"}}}, {}, Errc::unauthorized, "negotiate"},
      {basic, {}, Errc::unauthorized, "user name and password"},
      {{401, {{"WWW-Authenticate", R"(Bearer realm="http://a/")"}}}, {}, Errc::protocol, "http"},
      {{401, {{"WWW-Authenticate", "Bearer service=x"}}}, {}, Errc::protocol, "realm"},
      {bearer, {401}, Errc::unauthorized, "a.example"},
      {bearer, {403}, Errc::unauthorized, "a.example"},
      {bearer, {429}, Errc::unavailable, "a.example"},
      {bearer, body("nonsense"), Errc::protocol, "token server"},
      {bearer, body(R"({"token":"a\nb"})"), Errc::protocol, "token server"},
      {bearer, huge, Errc::protocol, "1 MiB"},
      {bearer, {302, {{"Location", "http://a.example/"}}}, Errc::protocol, "https to http"},
  };
  for (auto const& [refusal, reply, code, words] : cases) {
    Fixture f(FakeTransport([&](HttpRequest const&, std::size_t) { return reply; }));

    auto const renewed = f.authenticator.renew(0, refusal, deadline);

    INFO(words);
    REQUIRE_FALSE(renewed.has_value());
    CHECK(renewed.error().code == code);
    CHECK_THAT(renewed.error().message(), Catch::Contains(words));
  }
}

TEST_CASE("A form with an identity token is not carried along by a redirect",
          "[oci][auth][error]") {
  Fixture f(FakeTransport([](HttpRequest const&, std::size_t) {
              return FakeReply{307, {{"Location", "https://evil.example/"}}};
            }),
            login({{}, {}, "id", {}}));

  CHECK_FALSE(f.authenticator.renew(0, bearer, deadline).has_value());
  CHECK(f.transport.requests().size() == 1);
}

TEST_CASE("Credentials are looked up once, and again when they are refused", "[oci][auth]") {
  int lookups = 0;
  Fixture f(token_server(), [&](std::string const&, std::string const&) {
    ++lookups;
    return Result<std::optional<Credentials>>(Credentials{"AWS", std::to_string(lookups), {}, {}});
  });
  REQUIRE(f.authenticator.renew(0, bearer, deadline).has_value());

  for (int i = 0; i < 3; ++i) {
    f.clock.sleep(80s);
    CHECK(f.authenticator.authorization(deadline).generation == 2U + static_cast<unsigned>(i));
  }
  CHECK(lookups == 1);

  REQUIRE(f.authenticator.renew(4, basic, deadline).has_value());
  CHECK(lookups == 2);
  CHECK(f.authenticator.authorization(deadline).value == "Basic " + base64_encode("AWS:2"));
}

TEST_CASE("Credentials that were refused count once they are others", "[oci][auth]") {
  std::string password = "old";
  int lookups = 0;
  Fixture f(FakeTransport([](HttpRequest const& request, std::size_t) {
              if (header_of(request, "Authorization") != "Basic " + base64_encode("me:new")) {
                return FakeReply{401};
              }
              FakeReply reply;
              reply.body = to_bytes(R"({"token":"t"})");
              return reply;
            }),
            [&](std::string const&, std::string const&) {
              ++lookups;
              return Result<std::optional<Credentials>>(Credentials{"me", password, {}, {}});
            });
  REQUIRE(f.authenticator.renew(0, bearer, deadline).error().code == Errc::unauthorized);

  // The same ones again and again would lock the account.
  for (int i = 0; i < 10; ++i) {
    auto const again = f.authenticator.renew(0, bearer, deadline);
    CHECK(again.error().code == Errc::unauthorized);
    CHECK_THAT(again.error().message(), Catch::Contains("a.example"));
  }
  CHECK(lookups == 11);
  CHECK(f.transport.requests().size() == 1);
  f.clock.sleep(Authenticator::refused_for);
  CHECK_FALSE(f.authenticator.renew(0, bearer, deadline).has_value());
  CHECK(f.transport.requests().size() == 2);

  password = "new";
  CHECK(f.authenticator.renew(0, bearer, deadline).value().value == "Bearer t");
}

TEST_CASE("A refusal without a challenge is answered as the one before it", "[oci][auth]") {
  for (auto const* challenge : {&bearer, &basic}) {
    Fixture f(token_server(), login({"me", "x", {}, {}}));
    REQUIRE(f.authenticator.renew(0, *challenge, deadline).has_value());
    auto const before = f.authenticator.authorization(deadline);

    auto const after = f.authenticator.renew(before.generation, HttpHead{403, {}}, deadline);

    REQUIRE(after.has_value());
    CHECK(after->generation == before.generation + 1);
    CHECK((after->value == before.value) == (challenge == &basic));
  }
}

TEST_CASE("A thread that waits for another thread's login has a deadline", "[oci][auth][error]") {
  std::latch asked(1);
  std::latch answer(1);
  Fixture f(FakeTransport([&](HttpRequest const&, std::size_t) {
    asked.count_down();
    answer.wait();
    FakeReply reply;
    reply.body = to_bytes(std::string_view(R"({"token":"t","expires_in":100})"));
    return reply;
  }));
  std::jthread const first([&] { (void)f.authenticator.renew(0, bearer, deadline); });
  asked.wait();

  auto const late = f.authenticator.renew(0, bearer, f.clock.now());
  answer.count_down();

  REQUIRE_FALSE(late.has_value());
  CHECK(late.error().code == Errc::timed_out);
}

}  // namespace authenticator_test
}  // namespace erofs_oci
