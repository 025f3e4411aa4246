// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/http/detail/hedged_exchange.hpp>  // first: proves that the header stands alone

#include <atomic>
#include <latch>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>

namespace erofs_oci::detail {
namespace hedged_exchange_test {

using namespace std::chrono_literals;

/// No first answer comes in time.
struct AllLate {
  template <class Happened>
  bool passes(std::unique_lock<std::mutex>&, std::condition_variable&, Hedging::Duration,
              Happened const& happened) const {
    return !happened();
  }
};

/// Time stands still.
struct NoneLate {
  template <class Happened>
  bool passes(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
              Hedging::Duration, Happened const& happened) const {
    changed.wait(lock, happened);
    return false;
  }
};

using Exchange = HedgedExchange<>::Exchange;

HttpRequest range_request() {
  HttpRequest request;
  request.url = *Url::parse("https://r.example/blob");
  request.headers = {{"Range", "bytes=0-9"}};
  return request;
}

/// Until somebody stops the request.
Result<void> wait_for_stop(HttpRequest const& request) {
  std::latch stopped(1);
  std::stop_callback const release(request.stop, [&] { stopped.count_down(); });
  stopped.wait();
  return fail(Errc::stopping, "the test");
}

Result<void> reply(HttpHeadSink head, ByteSink body, int status, std::string const& text) {
  if (!head({status, {}})) return {};
  for (auto const c : text) {
    if (!body(as_bytes(std::string_view(&c, 1)))) return {};
  }
  return {};
}

struct Outcome {
  Result<void> done;
  std::vector<int> heads{};
  std::string body{};
  Hedging::Counts counts{};
  int exchanges = 0;
};

/// One hedged exchange, with a budget for a second one.
/// @param first, second  what the exchange does in the caller's thread, and in another one
template <class Timer>
Outcome run(Timer timer, Exchange const& first, Exchange const& second,
            HttpRequest const& request = range_request(), bool may_send = true) {
  Hedging hedging;
  for (std::size_t i = 0; i < Hedging::fewest; ++i) {
    static_cast<void>(hedging.begin("r.example"));
    hedging.note("r.example", 1ms);
  }
  auto const before = hedging.counts();
  Outcome out;
  std::atomic<int> exchanges = 0;
  auto const me = std::this_thread::get_id();
  {
    ThreadPool threads(1, 1);  // a second exchange that lost may go on until this ends
    HedgedExchange<Timer> const hedged(
        hedging, [&]() -> ThreadPool& { return threads; },
        [&](HttpRequest const& one, HttpHeadSink head, ByteSink body) {
          ++exchanges;
          return (std::this_thread::get_id() == me ? first : second)(one, head, body);
        },
        [=] { return may_send; }, timer);
    out.done = hedged.run(
        request,
        [&](HttpHead const& head) {
          out.heads.push_back(head.status);
          return true;
        },
        [&](std::span<std::byte const> bytes) {
          out.body += as_text(bytes);
          return true;
        });
  }
  out.counts = hedging.counts();
  out.counts.requests -= before.requests;
  out.exchanges = exchanges;
  return out;
}

Exchange const waits = [](HttpRequest const& request, HttpHeadSink, ByteSink) {
  return wait_for_stop(request);
};
Exchange const never = [](HttpRequest const&, HttpHeadSink, ByteSink) -> Result<void> {
  return fail(Errc::corrupt, "called");
};
Exchange answers(std::string text, int status = 206) {
  return [=](HttpRequest const&, HttpHeadSink head, ByteSink body) {
    return reply(head, body, status, text);
  };
}

TEST_CASE("The second request's answer counts if it comes first, and the first request is stopped",
          "[http][hedge]") {
  auto const out = run(AllLate(), waits, answers("abc"));

  REQUIRE(out.done.has_value());
  CHECK(out.heads == std::vector{206});
  CHECK(out.body == "abc");
  CHECK(out.counts == Hedging::Counts{1, 1, 1});
}

TEST_CASE("The first request's answer counts if it comes first, and the second one is stopped",
          "[http][hedge]") {
  std::latch sent(1);
  auto const out = run(
      AllLate(),
      [&](HttpRequest const&, HttpHeadSink head, ByteSink body) {
        sent.wait();
        return reply(head, body, 206, "abc");
      },
      [&](HttpRequest const& request, HttpHeadSink, ByteSink) {
        sent.count_down();
        return wait_for_stop(request);
      });

  REQUIRE(out.done.has_value());
  CHECK(out.heads == std::vector{206});
  CHECK(out.body == "abc");
  CHECK(out.counts == Hedging::Counts{1, 1, 0});
}

TEST_CASE("What is answered in time is asked for once", "[http][hedge]") {
  auto const status = GENERATE(206, 302, 503);
  auto const out = run(NoneLate(), answers("abc", status), never);

  CHECK(out.done.has_value());
  CHECK(out.heads == std::vector{status});
  CHECK(out.exchanges == 1);
  CHECK(out.counts == Hedging::Counts{1, 0, 0});
}

TEST_CASE("A request that fails in time is told so at once", "[http][hedge][error]") {
  auto const out = run(NoneLate(), never, never);

  CHECK(out.done.error().code == Errc::corrupt);
  CHECK(out.exchanges == 1);
}

TEST_CASE("A second request that is refused or fails leaves the first one alone",
          "[http][hedge][error]") {
  auto const second = GENERATE(as<Exchange>{}, answers("no", 503), answers("no", 403), never);
  std::latch over(1);
  auto const out = run(
      AllLate(),
      [&](HttpRequest const& request, HttpHeadSink head, ByteSink body) {
        over.wait();
        CHECK_FALSE(request.stop.stop_requested());
        return reply(head, body, 206, "abc");
      },
      [&](HttpRequest const& request, HttpHeadSink head, ByteSink body) {
        auto done = second(request, head, body);
        over.count_down();
        return done;
      });

  REQUIRE(out.done.has_value());
  CHECK(out.heads == std::vector{206});
  CHECK(out.body == "abc");
  CHECK(out.counts.won == 0);
}

Exchange breaks_after(std::latch& sent) {
  return [&sent](HttpRequest const&, HttpHeadSink, ByteSink) -> Result<void> {
    sent.wait();
    return fail(Errc::unavailable, "the connection broke");
  };
}

TEST_CASE("A first request that fails leaves the second one alone", "[http][hedge]") {
  std::latch sent(1);
  auto const out =
      run(AllLate(), breaks_after(sent), [&](HttpRequest const&, HttpHeadSink head, ByteSink body) {
        sent.count_down();
        return reply(head, body, 206, "abc");
      });

  REQUIRE(out.done.has_value());
  CHECK(out.body == "abc");
}

TEST_CASE("If both requests fail, the first one says why", "[http][hedge][error]") {
  std::latch sent(1);
  auto const out = run(AllLate(), breaks_after(sent),
                       [&](HttpRequest const&, HttpHeadSink, ByteSink) -> Result<void> {
                         sent.count_down();
                         return fail(Errc::protocol, "no HTTP");
                       });

  CHECK(out.done.error().code == Errc::unavailable);
}

TEST_CASE("A first request that throws ends the second one", "[http][hedge][error]") {
  std::latch sent(1);

  CHECK_THROWS_AS(run(
                      AllLate(),
                      [&](HttpRequest const&, HttpHeadSink, ByteSink) -> Result<void> {
                        sent.wait();
                        throw std::bad_alloc();
                      },
                      [&](HttpRequest const& request, HttpHeadSink, ByteSink) {
                        sent.count_down();
                        return wait_for_stop(request);
                      }),
                  std::bad_alloc);
}

TEST_CASE("A stop ends both requests", "[http][hedge][error]") {
  std::stop_source stop;
  auto request = range_request();
  request.stop = stop.get_token();
  auto const out = run(
      AllLate(), waits,
      [&](HttpRequest const& one, HttpHeadSink, ByteSink) {
        stop.request_stop();
        return wait_for_stop(one);
      },
      request);

  CHECK(out.done.error().code == Errc::stopping);
  CHECK(out.exchanges == 2);
}

TEST_CASE("A host that has asked for a pause gets no second request", "[http][hedge]") {
  auto const out = run(AllLate(), answers("abc"), never, range_request(), false);

  CHECK(out.body == "abc");
  CHECK(out.counts.sent == 0);
}

TEST_CASE("Whoever wins, one answer arrives, and all of it", "[http][hedge]") {
  for (int i = 0; i < 300; ++i) {
    auto const out = run(AllLate(), answers("1111"), answers("2222"));

    REQUIRE(out.done.has_value());
    REQUIRE(out.heads.size() == 1);
    REQUIRE((out.body == "1111" || out.body == "2222"));
    REQUIRE((out.body == "2222") == (out.counts.won == 1));
  }
}

TEST_CASE("Only requests for ranges are sent twice", "[http][hedge]") {
  auto request = range_request();
  CHECK(HedgedExchange<>::is_hedgeable(request));
  request.method = HttpMethod::post;
  CHECK_FALSE(HedgedExchange<>::is_hedgeable(request));
  request.method = HttpMethod::head;
  CHECK_FALSE(HedgedExchange<>::is_hedgeable(request));
  request.method = HttpMethod::get;
  request.headers = {{"Authorization", "Basic x"}};  // as to a token server
  CHECK_FALSE(HedgedExchange<>::is_hedgeable(request));
}

}  // namespace hedged_exchange_test
}  // namespace erofs_oci::detail
