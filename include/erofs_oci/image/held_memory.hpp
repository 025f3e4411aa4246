// SPDX-License-Identifier: Apache-2.0
/// @file
/// HeldMemory: what the caches of an image hold in memory, and a way to have them let go of it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace erofs_oci {

/// The caches of one image together. A copy is of the same caches; they live as long as one does.
///
/// @par Thread safety
/// All members, from any thread.
class HeldMemory {
 public:
  /// One cache.
  struct Part {
    std::function<std::uint64_t()> data;             ///< bytes of the image that it holds
    std::function<std::uint64_t()> all;              ///< bytes that it holds, whatever for
    std::function<void(std::uint64_t)> shrink_to{};  ///< has it hold at most so many
  };

  /// None: nothing is held.
  HeldMemory() = default;

  explicit HeldMemory(std::vector<Part> parts)
      : parts_(std::make_shared<std::vector<Part> const>(std::move(parts))) {}

  /// Bytes of the image in all caches.
  [[nodiscard]] std::uint64_t data() const { return sum(&Part::data); }

  /// Bytes that the caches take, with buffers for reuse and decoders.
  [[nodiscard]] std::uint64_t all() const { return sum(&Part::all); }

  /// Has the caches let go of memory until they take at most `bytes` together, each in proportion
  /// to what it takes now; what reads have in use stays until they end. Reads under way and later
  /// ones get the same bytes as without it.
  void shrink_to(std::uint64_t bytes) const {
    auto const before = all();
    if (before <= bytes) return;
    auto const share = static_cast<double>(bytes) / static_cast<double>(before);
    for (auto const& part : *parts_) {
      part.shrink_to(static_cast<std::uint64_t>(static_cast<double>(part.all()) * share));
    }
  }

 private:
  [[nodiscard]] std::uint64_t sum(std::function<std::uint64_t()> Part::* member) const {
    std::uint64_t bytes = 0;
    if (!parts_) return bytes;
    for (auto const& part : *parts_) bytes += (part.*member)();
    return bytes;
  }

  std::shared_ptr<std::vector<Part> const> parts_;  // null: none
};

}  // namespace erofs_oci
