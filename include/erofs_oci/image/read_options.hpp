// SPDX-License-Identifier: Apache-2.0
/// @file
/// ImageReadOptions: how much memory and time the reading of an image takes.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include <erofs_oci/combinator/proof.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/digest/digest.hpp>

namespace erofs_oci {

/// How an image is read.
struct ImageReadOptions {
  /// Most bytes kept of what was decoded or fetched, for all layers together. What reads have under
  /// way comes on top, up to a span and its compressed bytes for each of them. Beside compressed
  /// layers, plain ones share a quarter of it, however many they are. Default: 256 MiB.
  std::uint64_t cache_bytes = 256u << 20;
  /// Longest that one read waits for a compressed layer, or for one span of a plain one, which ends
  /// with the first bytes that come later. Default: 30 s.
  std::chrono::milliseconds deadline{30'000};
  /// Most compressed bytes of a span with a digest: a read of any of its bytes takes twice as much.
  /// Default: 16 MiB.
  std::uint64_t max_span = MemoryBudget{}.span();
  unsigned connections = 4;  ///< runs fetched at the same time, 1 to 64. Default: 4
  /// For a blob of which only the digest of the whole is known. Default: lazy
  Verify verify = Verify::lazy;
  /// Whether open_image() reads from the layer's data what shows that they are no such data as the
  /// index is for. Not for what was open before: its other files are good, whatever has become of
  /// these bytes. Default: yes
  bool try_data = true;
  /// Told, by threads that read, which bytes [begin, end) of the blob of a remote layer with an
  /// index a read has needed; again and again perhaps. See StartRecorder. Default: nobody is.
  std::function<void(Digest const& layer, std::uint64_t begin, std::uint64_t end)> on_need{};
  /// Told, by threads that read, which bytes [begin, end) of the decoded stream of such a layer a
  /// read has got. Of a gzip alone. Default: nobody is.
  std::function<void(Digest const& layer, std::uint64_t begin, std::uint64_t end)> on_read{};
};

}  // namespace erofs_oci
