// SPDX-License-Identifier: Apache-2.0
/// @file
/// Suspects: finds READs that crash every engine that gets them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include <erofs_oci/nbd/read_table.hpp>

namespace erofs_oci::nbd {

/// Decides which READs an engine may get. After some crashes a READ is a suspect and goes to an
/// engine alone; after some more it goes to none.
///
/// @par Thread safety
/// None.
class Suspects {
 public:
  /// @param after   crashes from which on a READ is a suspect, at least 1
  /// @param refuse  crashes of a suspect from which on no engine gets it, at least 1
  Suspects(unsigned after, unsigned refuse) noexcept
      : after_(std::max(after, 1U)), refuse_(std::max(refuse, 1U)) {}

  [[nodiscard]] bool is_one(PendingRead const& read) const noexcept {
    return read.crashes >= after_;
  }

  /// A READ of the queue that no engine may get any more; empty: there is none.
  [[nodiscard]] std::optional<ReadTable::Id> crasher(ReadTable const& reads) const {
    auto const line = reads.line();
    auto const found = std::ranges::find_if(line, [&](ReadTable::Id id) {
      return reads.at(id).crashes >= std::uint64_t{after_} + refuse_;
    });
    if (found == line.end()) return std::nullopt;
    return *found;
  }

  /// A message about the crashes of a READ.
  [[nodiscard]] static std::string describe(PendingRead const& read) {
    return "a READ of " + std::to_string(read.length) + " bytes at offset " +
           std::to_string(read.offset) + " has crashed " + std::to_string(read.crashes) +
           " processes";
  }

  /// How many READs from the front of the queue an engine may get now. Suspects come first, and one
  /// at a time, to an engine that has no other READ.
  [[nodiscard]] std::size_t may_send(ReadTable& reads, EngineId engine) const {
    auto const line = reads.line();
    if (!reads.has_crashes()) return line.size();
    auto const is_suspect = [this](PendingRead const& read) { return is_one(read); };
    if (reads.any_of(engine, is_suspect)) return 0;
    auto const found =
        std::ranges::find_if(line, [&](ReadTable::Id id) { return is_one(reads.at(id)); });
    if (found == line.end()) return line.size();
    if (reads.count_of(engine) != 0) return 0;
    reads.prefer(static_cast<std::size_t>(found - line.begin()));
    return 1;
  }

 private:
  unsigned after_;
  unsigned refuse_;
};

}  // namespace erofs_oci::nbd
