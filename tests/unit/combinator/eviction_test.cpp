// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/eviction.hpp>  // first: proves that the header stands alone

#include <map>
#include <vector>

#include <catch2/catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace {

TEST_CASE("Lru gives up what was longest not asked for", "[combinator][eviction][property]") {
  rc::prop("for all histories, as a list that is searched from the front", [] {
    Lru policy;
    std::vector<std::uint64_t> model;  // the oldest in front
    auto const steps = *rc::gen::container<std::vector<std::pair<int, std::uint64_t>>>(
        rc::gen::pair(rc::gen::inRange(0, 5), rc::gen::inRange<std::uint64_t>(0, 8)));

    for (auto const& [what, key] : steps) {
      auto const place = std::ranges::find(model, key);
      if (what == 0) {
        auto const victim = policy.evict();
        RC_ASSERT(victim.has_value() == !model.empty());
        if (!victim) continue;
        RC_ASSERT(*victim == model.front());
        model.erase(model.begin());
      } else if (place == model.end()) {
        policy.inserted(key, 1);
        model.push_back(key);
      } else {
        policy.touched(key);
        model.erase(place);
        model.push_back(key);
      }
    }
  });
}

TEST_CASE("S3Fifo gives up each key once, and only keys that it has",
          "[combinator][eviction][property]") {
  rc::prop("for all histories", [] {
    S3Fifo policy;
    std::map<std::uint64_t, int> held;
    auto const steps = *rc::gen::container<std::vector<std::pair<int, std::uint64_t>>>(
        rc::gen::pair(rc::gen::inRange(0, 4), rc::gen::inRange<std::uint64_t>(0, 12)));

    auto const evict = [&] {
      auto const victim = policy.evict();
      RC_ASSERT(victim.has_value() == !held.empty());
      if (victim) RC_ASSERT(held.erase(*victim) == 1u);
    };
    for (auto const& [what, key] : steps) {
      if (what == 0) {
        evict();
      } else if (held.contains(key)) {
        policy.touched(key);
      } else {
        policy.inserted(key, 1 + key);
        held[key] = 1;
      }
    }
    while (!held.empty()) evict();
    RC_ASSERT_FALSE(policy.evict().has_value());
  });
}

/// Counts how many of 20 keys in use outlast a scan over 1000 others, in a cache of 100.
template <class Policy>
std::size_t survivors() {
  Policy policy;
  std::map<std::uint64_t, int> held;
  auto const ask = [&](std::uint64_t key) {
    if (held.contains(key)) return policy.touched(key);
    while (held.size() >= 100) held.erase(policy.evict().value());
    policy.inserted(key, 4096);
    held[key] = 1;
  };
  for (auto round = 0; round < 3; ++round) {
    for (std::uint64_t key = 0; key < 20; ++key) ask(key);
  }
  for (std::uint64_t key = 1000; key < 2000; ++key) ask(key);
  return static_cast<std::size_t>(
      std::ranges::count_if(held, [](auto const& item) { return item.first < 20; }));
}

TEST_CASE("S3Fifo keeps what is in use during a long scan, Lru does not",
          "[combinator][eviction]") {
  CHECK(survivors<S3Fifo>() == 20);
  CHECK(survivors<Lru>() == 0);
}

}  // namespace
}  // namespace erofs_oci
