// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/http/resolver.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include <catch.hpp>

namespace erofs_oci {
namespace resolver_test {

using namespace std::chrono_literals;
using Steady = std::chrono::steady_clock;

TEST_CASE("An address tells where it can be reached from", "[http][resolver]") {
  auto const [text, reach] = GENERATE(table<std::string, Reach>({
      {"8.8.8.8", Reach::everywhere},
      {"172.32.0.1", Reach::everywhere},
      {"2001:4860::8888", Reach::everywhere},
      {"10.1.2.3", Reach::site},
      {"172.16.0.1", Reach::site},
      {"172.31.255.255", Reach::site},
      {"192.168.0.1", Reach::site},
      {"100.64.0.1", Reach::site},
      {"fd00::1", Reach::site},
      {"127.0.0.1", Reach::machine},
      {"127.9.9.9", Reach::machine},
      {"0.0.0.0", Reach::machine},
      {"::1", Reach::machine},
      {"::", Reach::machine},
      {"::ffff:127.0.0.1", Reach::machine},
      {"::ffff:8.8.8.8", Reach::everywhere},
      {"64:ff9b::10.0.0.1", Reach::site},
      {"169.254.169.254", Reach::link},
      {"255.255.255.255", Reach::link},
      {"224.0.0.1", Reach::link},
      {"fe80::1", Reach::link},
      {"ff02::1", Reach::link},
  }));

  auto const found = look_up(text, AI_NUMERICHOST);

  INFO(text);
  REQUIRE(found.has_value());
  CHECK(found->front().reach() == reach);
}

TEST_CASE("A host is looked up once for all, and not again for a while", "[http][resolver]") {
  std::atomic<int> asked = 0;
  std::promise<void> go;
  auto const gate = go.get_future().share();
  Resolver resolver([&, gate](std::string const&) {
    ++asked;
    gate.wait();
    return look_up("192.0.2.1", AI_NUMERICHOST);
  });
  std::vector<std::future<std::string>> answers;
  for (int i = 0; i < 4; ++i) {
    answers.push_back(std::async(std::launch::async, [&] {
      auto const found = resolver.resolve("a.host", Steady::now() + 30s);
      return found ? found->front().text() : found.error().message();
    }));
  }

  go.set_value();

  for (auto& answer : answers) CHECK(answer.get() == "192.0.2.1");
  CHECK(resolver.resolve("a.host", Steady::now() + 30s).has_value());
  CHECK(asked == 1);
  CHECK(resolver.resolve("192.0.2.7", Steady::now()).value().front().text() == "192.0.2.7");
  CHECK(asked == 1);
}

TEST_CASE("A look-up that does not end holds nobody beyond the deadline",
          "[http][resolver][error]") {
  std::promise<void> go;
  auto const gate = go.get_future().share();
  Resolver resolver([gate](std::string const&) {
    gate.wait();
    return look_up("192.0.2.1", AI_NUMERICHOST);
  });
  auto const start = Steady::now();

  auto const late = resolver.resolve("a.host", start + 50ms);

  CHECK(late.error().code == Errc::timed_out);
  CHECK(Steady::now() - start < 10s);
  for (std::size_t i = 1; i < Resolver::most_running; ++i) {
    CHECK(resolver.resolve(std::to_string(i) + ".host", start).error().code == Errc::timed_out);
  }
  CHECK(resolver.resolve("b.host", start).error().code == Errc::unavailable);
  go.set_value();
  CHECK(resolver.resolve("a.host", Steady::now() + 30s).has_value());
}

TEST_CASE("A stop ends the waiting for a look-up", "[http][resolver][error]") {
  std::promise<void> go;
  auto const gate = go.get_future().share();
  std::stop_source stop;
  Resolver resolver([gate, stop](std::string const&) mutable {
    stop.request_stop();
    gate.wait();
    return look_up("192.0.2.1", AI_NUMERICHOST);
  });
  auto const start = Steady::now();

  auto const stopped = resolver.resolve("a.host", start + 1h, stop.get_token());

  CHECK(stopped.error().code == Errc::stopping);
  CHECK(Steady::now() - start < 1min);
  go.set_value();
}

TEST_CASE("A failed look-up is not kept", "[http][resolver][error]") {
  int asked = 0;
  Resolver resolver([&asked](std::string const&) -> Result<Resolver::Addresses> {
    if (++asked == 1) return fail(Errc::unavailable, "no answer");
    if (asked == 2) throw std::bad_alloc();
    return look_up("192.0.2.1", AI_NUMERICHOST);
  });
  auto const ask = [&] { return resolver.resolve("a.host", Steady::now() + 30s); };

  CHECK(ask().error().code == Errc::unavailable);
  CHECK(ask().error().code == std::errc::not_enough_memory);
  CHECK(ask().has_value());
}

}  // namespace resolver_test
}  // namespace erofs_oci
