// SPDX-License-Identifier: Apache-2.0
/// @file
/// MemoryBudget: what one image may take in memory; ImageMemory: what its layers have taken of it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>

#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// One number an image, from which every limit of it is derived. While an image is opened, trees
/// and windows take memory; while it is read, the cache does, in the same place. Fixed costs of the
/// process (code, threads, buffers of pieces, about 8 MiB for each layer that is indexed at the
/// same time) come on top.
struct MemoryBudget {
  std::uint64_t bytes = std::uint64_t{512} << 20;  ///< Range: 64 MiB or more. Default: 512 MiB

  /// Files, names and attributes of all layers together. Default: 256 MiB, about a million files.
  [[nodiscard]] constexpr std::uint64_t trees() const noexcept { return bytes / 2; }
  /// Of those, what the layers may have however short they are; see ImageMemory::take_tree().
  [[nodiscard]] constexpr std::uint64_t small_trees() const noexcept { return bytes / 32; }
  /// Spans and their windows in the indexes that are made of all layers. Default: 128 MiB, 16 GB of
  /// decoded data at the least.
  [[nodiscard]] constexpr std::uint64_t windows() const noexcept { return bytes / 4; }
  /// A ztoc, which takes twice as much while it is parsed. Default: 128 MiB.
  [[nodiscard]] constexpr std::uint64_t ztoc() const noexcept { return bytes / 4; }
  /// Compressed bytes with one digest, a span of a SOCI index at the most, all of which a read of
  /// any byte needs; and of a deflate block. At least 16 MiB. Default: 16 MiB.
  [[nodiscard]] constexpr std::uint64_t span() const noexcept {
    return std::max(bytes / 32, std::uint64_t{16} << 20);
  }
  /// Data kept while the image is read. Default: 256 MiB.
  [[nodiscard]] constexpr std::uint64_t cache() const noexcept { return bytes / 2; }
};

/// Counts what the layers of one image take of its budget while they are indexed. Nothing is given
/// back, so that the answer does not depend on which layers are indexed at the same time.
///
/// @par Thread safety
/// All members, from any thread.
class ImageMemory {
 public:
  /// What a tree may take for each byte of the layers that was read. A member of a tar is at least
  /// 5 bytes, gzipped, and 250 in a tree; a path of 4 KiB may be 20 bytes and 400 KiB in a tree.
  static constexpr std::uint64_t tree_bytes_per_byte = 32;

  /// @param came  bytes of layers that count as read already
  explicit ImageMemory(MemoryBudget budget = {}, std::uint64_t came = 0) noexcept
      : budget_(budget), came_(came) {}

  [[nodiscard]] MemoryBudget const& budget() const noexcept { return budget_; }

  /// Counts bytes of a layer, or of its ztoc, that were read.
  void came(std::uint64_t bytes) noexcept { came_.fetch_add(bytes, std::memory_order_relaxed); }

  /// Takes memory for files.
  /// @error{Errc::unsupported, MemoryBudget::trees() is used up\, or more than `small_trees()` and
  /// `tree_bytes_per_byte` for each byte that was read}
  [[nodiscard]] Result<void> take_tree(std::uint64_t bytes) {
    auto const used = trees_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
    auto const came = came_.load(std::memory_order_relaxed);
    if (used > budget_.trees()) return refuse("files", budget_.trees());
    if (used <= budget_.small_trees() ||
        (used - budget_.small_trees()) / tree_bytes_per_byte <= came) {
      return {};
    }
    return fail(Errc::unsupported, "the files in " + std::to_string(came) +
                                       " bytes of layers take more than " + mebibytes(used) +
                                       ", as only a made-up layer does" + advice);
  }

  /// Takes memory for the spans of an index and their windows.
  /// @error{Errc::unsupported, MemoryBudget::windows() is used up}
  [[nodiscard]] Result<void> take_windows(std::uint64_t bytes) {
    auto const used = windows_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
    if (used > budget_.windows()) return refuse("indexes", budget_.windows());
    return {};
  }

  /// What the user can do, to put behind a limit.
  static constexpr char const* advice = ": if you trust the image, set a larger oci.memory";

 private:
  [[nodiscard]] static std::string mebibytes(std::uint64_t bytes) {
    return std::to_string(bytes >> 20) + " MiB of memory";
  }

  [[nodiscard]] static tl::unexpected<Error> refuse(char const* what, std::uint64_t most) {
    return fail(Errc::unsupported, std::string("the ") + what +
                                       " of the image's layers take more than " + mebibytes(most) +
                                       advice);
  }

  MemoryBudget const budget_;
  std::atomic<std::uint64_t> came_;
  std::atomic<std::uint64_t> trees_{0};
  std::atomic<std::uint64_t> windows_{0};
};

}  // namespace erofs_oci
