// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/start_fetcher.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/digest/sha256.hpp>

namespace erofs_oci {
namespace start_fetcher_test {

Digest digest(unsigned number) {
  return digest_of(as_bytes(std::to_string(number)));
}

/// A layer of whose bytes every tenth begins a span, and what was asked of it.
struct Fake {
  std::mutex mutex;
  std::condition_variable_any changed;
  std::vector<PlannedFetch> asked;
  std::optional<std::size_t> fails_at;  // the number of a fetch
  bool waits = false;                   // until it is stopped

  Result<std::uint64_t> fetch(std::size_t layer, std::uint64_t begin, std::uint64_t end,
                              std::stop_token const& stop) {
    std::unique_lock lock(mutex);
    asked.push_back({layer, begin, end});
    changed.notify_all();
    if (fails_at == asked.size() - 1) return fail(Errc::unavailable, "fake");
    if (!waits) return end - begin;
    changed.wait(lock, stop, [] { return false; });
    return fail(Errc::stopping, "fake");
  }

  void wait_for(std::size_t count) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return asked.size() >= count; });
  }
};

std::vector<StartLayer> layers_of(std::shared_ptr<Fake> const& fake, std::size_t count,
                                  std::uint64_t size) {
  std::vector<StartLayer> layers;
  for (std::size_t i = 0; i < count; ++i) {
    layers.push_back(
        {digest(static_cast<unsigned>(i)), size,
         [size](std::uint64_t at) { return std::min((at + 9) / 10 * 10, size); },
         [fake, i](std::uint64_t begin, std::uint64_t end, std::stop_token const& stop) {
           return fake->fetch(i, begin, end, stop);
         }});
  }
  return layers;
}

StartList list_of(std::vector<StartRange> const& ranges) {
  StartList list;
  for (auto const& range : ranges) list.add(range);
  return list;
}

TEST_CASE("A plan joins what lies close together, in the place of the first of it",
          "[image][start_fetcher]") {
  auto const layers = layers_of(std::make_shared<Fake>(), 2, 1000);
  auto const list = list_of({{digest(1), 500, 520},
                             {digest(0), 100, 110},
                             {digest(1), 480, 490},
                             {digest(7), 0, 10},      // another image's
                             {digest(0), 990, 1500},  // which the layer is too short for
                             {digest(0), 2000, 2010},
                             {digest(1), 531, 540}});
  StartFetchOptions options;
  options.gap = 10;

  auto const plan = plan_start(list, layers, options);

  CHECK(plan ==
        std::vector<PlannedFetch>{{1, 480, 520}, {0, 100, 110}, {0, 990, 1000}, {1, 531, 540}});
}

TEST_CASE("A plan cuts where spans begin, and ends with its bytes", "[image][start_fetcher]") {
  auto const layers = layers_of(std::make_shared<Fake>(), 1, 1000);
  auto const list = list_of({{digest(0), 100, 192}, {digest(0), 500, 600}});
  StartFetchOptions options;
  options.gap = 0;
  options.request = 35;
  options.most_bytes = 120;

  auto const plan = plan_start(list, layers, options);

  CHECK(plan ==
        std::vector<PlannedFetch>{{0, 100, 140}, {0, 140, 180}, {0, 180, 192}, {0, 500, 530}});
}

TEST_CASE("A plan has all of the list, and little more", "[image][start_fetcher][property]") {
  rc::prop("for all lists and options", [] {
    auto const layers = layers_of(std::make_shared<Fake>(), 2, 400);
    StartList list;
    auto const count = *rc::gen::inRange(0, 20);
    for (int i = 0; i < count; ++i) {
      auto const begin = *rc::gen::inRange<std::uint64_t>(0, 390);
      list.add({digest(*rc::gen::inRange(0U, 2U)), begin,
                begin + *rc::gen::inRange<std::uint64_t>(1, 11)});
    }
    StartFetchOptions options;
    options.gap = *rc::gen::inRange<std::uint64_t>(0, 50);
    options.request = *rc::gen::inRange<std::uint64_t>(0, 100);

    auto const plan = plan_start(list, layers, options);

    StartList planned;
    std::uint64_t bytes = 0;
    for (auto const& piece : plan) {
      RC_ASSERT(piece.begin < piece.end);
      bytes += piece.end - piece.begin;
      planned.add({layers[piece.layer].digest, piece.begin, piece.end});
    }
    RC_ASSERT(planned.bytes() == bytes);  // none twice
    RC_ASSERT(planned.overlap(list) == list.bytes());
    RC_ASSERT(bytes <= list.bytes() + options.gap * list.ranges().size());
  });
}

TEST_CASE("A fetcher fetches each range once, in order", "[image][start_fetcher]") {
  auto const fake = std::make_shared<Fake>();
  auto const layers = layers_of(fake, 1, 1000);
  std::vector<PlannedFetch> const plan{{0, 500, 510}, {0, 0, 100}, {0, 700, 800}};
  StartFetchOptions options;
  options.threads = 1;
  StartFetcher const fetcher(plan, layers, options);

  while (!fetcher.fetched().done) std::this_thread::yield();

  auto const fetched = fetcher.fetched();
  CHECK(fetched.bytes == 210);
  CHECK(fetched.list.bytes() == 210);
  CHECK(fake->asked == plan);
}

TEST_CASE("Threads share a plan", "[image][start_fetcher][threads]") {
  auto const fake = std::make_shared<Fake>();
  std::vector<PlannedFetch> plan;
  for (std::uint64_t i = 0; i < 50; ++i) plan.push_back({0, 10 * i, 10 * i + 5});
  StartFetcher const fetcher(plan, layers_of(fake, 1, 1000), {});

  while (!fetcher.fetched().done) std::this_thread::yield();

  std::ranges::sort(fake->asked, {}, &PlannedFetch::begin);
  CHECK(fake->asked == plan);
}

TEST_CASE("The end of a fetcher, or a stop, ends what it fetches", "[image][start_fetcher]") {
  auto const fake = std::make_shared<Fake>();
  fake->waits = true;
  std::vector<PlannedFetch> const plan{{0, 0, 10}, {0, 20, 30}, {0, 40, 50}, {0, 60, 70}};
  bool failed = false;
  StartFetchOptions options;
  options.threads = 2;
  options.on_failure = [&](Error const&) { failed = true; };
  std::stop_source stop;
  auto const by_token = GENERATE(false, true);
  {
    StartFetcher const fetcher(plan, layers_of(fake, 1, 1000), options, stop.get_token());
    fake->wait_for(2);
    if (by_token) {
      stop.request_stop();
      while (!fetcher.fetched().done) std::this_thread::yield();
    }
  }
  CHECK(fake->asked.size() == 2);
  CHECK_FALSE(failed);
}

TEST_CASE("An error ends fetching ahead, and is told once", "[image][start_fetcher][error]") {
  auto const fake = std::make_shared<Fake>();
  fake->fails_at = 1;
  std::vector<PlannedFetch> const plan{{0, 0, 10}, {0, 20, 30}, {0, 40, 50}, {0, 60, 70}};
  std::vector<Error> errors;
  StartFetchOptions options;
  options.threads = 1;
  options.on_failure = [&](Error const& error) { errors.push_back(error); };
  {
    StartFetcher const fetcher(plan, layers_of(fake, 1, 1000), options);
    while (!fetcher.fetched().done) std::this_thread::yield();
    CHECK(fetcher.fetched().bytes == 10);
  }
  CHECK(fake->asked.size() == 2);
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].code == Errc::unavailable);
}

TEST_CASE("Nothing to fetch is done at once", "[image][start_fetcher]") {
  StartFetcher const fetcher({}, {}, {});
  CHECK(fetcher.fetched().done);
}

}  // namespace start_fetcher_test
}  // namespace erofs_oci
