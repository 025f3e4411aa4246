// SPDX-License-Identifier: Apache-2.0
/// @file
/// Eviction: which chunk a full cache gives up; Lru and S3Fifo.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>
#include <unordered_set>
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

/// Gives up first what was asked for only once, so that one long scan does not empty the cache.
///
/// New keys pass through a small queue, a tenth of all bytes. Those asked for again there, or again
/// soon after they left, go to a main queue, in which each further use buys one more round.
/// @spec{Yang et al.\, "FIFO queues are all you need for cache eviction"\, SOSP 2023}
class S3Fifo {
 public:
  void inserted(std::uint64_t key, std::uint64_t bytes) {
    auto const returns = ghosts_.erase(key) > 0;
    auto& queue = returns ? main_ : small_;
    queue.keys.push_back(key);
    queue.bytes += bytes;
    items_[key] = Item{bytes, 0};
  }

  void touched(std::uint64_t key) {
    auto const item = items_.find(key);
    if (item != items_.end()) item->second.uses = std::min(item->second.uses + 1, 3u);
  }

  [[nodiscard]] std::optional<std::uint64_t> evict() {
    auto const small_is_full = small_.bytes * 10 >= small_.bytes + main_.bytes;
    if (small_is_full || main_.keys.empty()) {
      if (auto const victim = evict_from_small()) return victim;
    }
    if (auto const victim = evict_from_main()) return victim;
    return evict_from_small();
  }

 private:
  struct Item {
    std::uint64_t bytes;
    unsigned uses;  // 0 to 3
  };

  struct Queue {
    std::list<std::uint64_t> keys;  // the oldest in front
    std::uint64_t bytes = 0;
  };

  std::optional<std::uint64_t> evict_from_small() {
    while (!small_.keys.empty()) {
      auto const key = small_.keys.front();
      auto& item = items_.at(key);
      small_.bytes -= item.bytes;
      if (item.uses == 0) {
        small_.keys.pop_front();
        items_.erase(key);
        remember(key);
        return key;
      }
      item.uses = 0;
      main_.bytes += item.bytes;
      main_.keys.splice(main_.keys.end(), small_.keys, small_.keys.begin());
    }
    return std::nullopt;
  }

  std::optional<std::uint64_t> evict_from_main() {
    while (!main_.keys.empty()) {
      auto const key = main_.keys.front();
      auto& item = items_.at(key);
      if (item.uses > 0) {
        --item.uses;
        main_.keys.splice(main_.keys.end(), main_.keys, main_.keys.begin());
        continue;
      }
      main_.keys.pop_front();
      main_.bytes -= item.bytes;
      items_.erase(key);
      return key;
    }
    return std::nullopt;
  }

  // Keeps as many keys that left as there are keys that stay.
  void remember(std::uint64_t key) {
    if (ghosts_.insert(key).second) ghost_order_.push_back(key);
    while (ghost_order_.size() > items_.size() + 1) {
      ghosts_.erase(ghost_order_.front());
      ghost_order_.pop_front();
    }
  }

  Queue small_;
  Queue main_;
  std::unordered_map<std::uint64_t, Item> items_;
  std::unordered_set<std::uint64_t> ghosts_;
  std::list<std::uint64_t> ghost_order_;  // the oldest in front; may name keys that came back
};

static_assert(Eviction<Lru> && Eviction<S3Fifo>);

}  // namespace erofs_oci
