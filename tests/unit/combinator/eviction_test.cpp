// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/combinator/eviction.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <utility>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace erofs_oci {
namespace eviction_test {

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

}  // namespace eviction_test
}  // namespace erofs_oci
