// SPDX-License-Identifier: Apache-2.0
/// @file
/// ReadTable: the READs of a relay that are not answered, and which engine has which.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>

namespace erofs_oci::nbd {

/// Names an engine of a relay; 0: none.
using EngineId = std::uint64_t;

/// Why an engine has ended.
enum class EngineEnd : std::uint8_t {
  killed,   ///< by another process, or by the supervisor on purpose
  crashed,  ///< by a signal of its own or a hang; perhaps because of a READ
};

/// Called with the bytes of a probe, which are valid until it returns, or with the error.
using OnProbe = std::function<void(Result<std::span<std::byte const>>)>;

/// A READ on its way.
struct PendingRead {
  static constexpr std::size_t no_socket = static_cast<std::size_t>(-1);

  std::size_t socket = no_socket;  ///< none: a probe, or its socket has gone
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;  ///< bytes
  std::uint32_t length = 0;  ///< bytes
  std::size_t place = 0;     ///< in the arena
  EngineId engine = 0;       ///< that has it; 0: none
  OnProbe on_probe{};        ///< only of a probe
  unsigned crashes = 0;      ///< of engines that had it
};

/// The unanswered READs, each under a number that is never used twice, and the queue of those that
/// no engine has. Only add() allocates.
///
/// @par Thread safety
/// None.
class ReadTable {
 public:
  using Id = std::uint64_t;

  /// Adds a READ; one that no engine has comes to the end of the queue. If allocating fails, the
  /// table is unchanged.
  Id add(PendingRead read) {
    if (line_.capacity() <= reads_.size()) line_.reserve(2 * reads_.size() + 16);
    auto const id = next_;
    auto const waits = read.engine == 0;
    reads_.emplace(id, std::move(read));
    if (waits) line_.push_back(id);
    ++next_;
    return id;
  }

  [[nodiscard]] bool empty() const noexcept { return reads_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return reads_.size(); }

  /// The READ of a number, which must exist.
  [[nodiscard]] PendingRead const& at(Id id) const { return reads_.at(id); }

  /// Null if there is none of that number.
  [[nodiscard]] PendingRead const* find(Id id) const noexcept {
    auto const found = reads_.find(id);
    return found == reads_.end() ? nullptr : &found->second;
  }

  /// Removes the READ of a number, which must exist.
  [[nodiscard]] PendingRead take(Id id) noexcept {
    auto const found = reads_.find(id);
    assert(found != reads_.end());
    auto read = std::move(found->second);
    reads_.erase(found);
    if (read.engine == 0) std::erase(line_, id);
    has_crashes_ = has_crashes_ && !reads_.empty();
    return read;
  }

  /// How many READs an engine has.
  [[nodiscard]] std::size_t count_of(EngineId engine) const noexcept {
    return static_cast<std::size_t>(
        std::ranges::count(reads_, engine, [](auto const& each) { return each.second.engine; }));
  }

  /// Whether `is_such` holds for a READ of this engine, or for one of the queue (0).
  template <class Is>
  [[nodiscard]] bool any_of(EngineId engine, Is const& is) const {
    return std::ranges::any_of(
        reads_, [&](auto const& each) { return each.second.engine == engine && is(each.second); });
  }

  /// The queue: the READs that no engine has.
  [[nodiscard]] std::span<Id const> line() const noexcept { return line_; }

  /// Whether any READ may have been with an engine that crashed.
  [[nodiscard]] bool has_crashes() const noexcept { return has_crashes_; }

  /// Moves a READ to the front of the queue.
  /// @param index  its place there
  void prefer(std::size_t index) noexcept {
    auto const at = line_.begin() + static_cast<std::ptrdiff_t>(index);
    std::rotate(line_.begin(), at, at + 1);
  }

  /// Gives the first `count` of the queue to an engine.
  void assign(std::size_t count, EngineId engine) {
    auto const end = line_.begin() + static_cast<std::ptrdiff_t>(count);
    for (auto const id : std::span(line_).first(count)) reads_.at(id).engine = engine;
    line_.erase(line_.begin(), end);
  }

  /// To be called when an engine has ended: moves its READs to the end of the queue.
  /// @param on_ended  called with each READ of a closed socket and each probe, which are removed
  /// @return how many READs came to the queue
  template <class OnEnded>
  std::size_t take_back(EngineId engine, EngineEnd how, OnEnded const& on_ended) {
    std::size_t count = 0;
    for (auto each = reads_.begin(); each != reads_.end();) {
      auto const here = each++;
      auto& read = here->second;
      if (read.engine != engine) continue;
      if (read.socket == PendingRead::no_socket) {
        auto ended = std::move(read);
        reads_.erase(here);
        on_ended(std::move(ended));
        continue;
      }
      read.engine = 0;
      if (how == EngineEnd::crashed) ++read.crashes;
      has_crashes_ = has_crashes_ || read.crashes != 0;
      line_.push_back(here->first);  // add() has reserved its place
      ++count;
    }
    return count;
  }

  /// To be called when a socket was closed: removes its READs, but keeps those that an engine has
  /// until the engine has answered.
  /// @param on_ended  called with each READ that is removed
  template <class OnEnded>
  void forget_socket(std::size_t socket, OnEnded const& on_ended) {
    for (auto each = reads_.begin(); each != reads_.end();) {
      auto const here = each++;
      auto& read = here->second;
      if (read.socket != socket) continue;
      read.socket = PendingRead::no_socket;
      if (read.engine == 0) on_ended(take(here->first));
    }
  }

 private:
  std::map<Id, PendingRead> reads_{};
  std::vector<Id> line_{};  // of reads_, those that no engine has
  Id next_ = 1;
  bool has_crashes_ = false;
};

}  // namespace erofs_oci::nbd
