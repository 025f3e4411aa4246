// SPDX-License-Identifier: Apache-2.0
/// @file
/// Eviction: which chunk a full cache gives up; Lru.
#pragma once

#include <concepts>
#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>
#include <utility>

namespace erofs_oci {

/// Keeps the keys of a cache in some order and names the next victim. Called under the cache's
/// lock: it need not be thread-safe, and must be quick.
template <class E>
concept Eviction = std::movable<E> && requires(E& policy, std::uint64_t key, std::uint64_t bytes) {
  policy.inserted(key, bytes);  // a new key; bytes > 0
  policy.touched(key);          // a key that is there was asked for
  { policy.evict() } -> std::same_as<std::optional<std::uint64_t>>;  // forgets the key it yields
};

/// Gives up what was longest not asked for.
class Lru {
 public:
  void inserted(std::uint64_t key, std::uint64_t) {
    order_.push_front(key);
    places_[key] = order_.begin();
  }

  void touched(std::uint64_t key) {
    auto const place = places_.find(key);
    if (place != places_.end()) order_.splice(order_.begin(), order_, place->second);
  }

  [[nodiscard]] std::optional<std::uint64_t> evict() {
    if (order_.empty()) return std::nullopt;
    auto const key = order_.back();
    places_.erase(key);
    order_.pop_back();
    return key;
  }

 private:
  std::list<std::uint64_t> order_;  // the latest in front
  std::unordered_map<std::uint64_t, std::list<std::uint64_t>::iterator> places_;
};

static_assert(Eviction<Lru>);

}  // namespace erofs_oci
