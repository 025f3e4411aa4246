// SPDX-License-Identifier: Apache-2.0
/// @file
/// The state of a mount, as JSON and for Prometheus.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include <erofs_oci/gzip/find_checkpoints.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/http/hedging.hpp>
#include <erofs_oci/nbd/relay.hpp>

namespace mount_oci {

using erofs_oci::ByteRange;

/// What a worker has read of layers that are kept on disk.
struct DiskUse {
  std::uint64_t hits = 0;        ///< chunks that came from there
  std::uint64_t hit_bytes = 0;   ///< in these
  std::uint64_t misses = 0;      ///< chunks that came from a registry
  std::uint64_t miss_bytes = 0;  ///< in these
  std::uint64_t kept = 0;        ///< bytes of the layers that are there
  std::uint64_t total = 0;       ///< bytes of the layers; 0: none is kept on disk

  /// Whether no read needs the registry.
  [[nodiscard]] bool is_complete() const noexcept { return total != 0 && kept == total; }

  friend bool operator==(DiskUse const&, DiskUse const&) = default;
};

/// What a start list was good for.
struct StartUse {
  std::uint64_t fetched = 0;  ///< compressed bytes that were fetched ahead
  std::uint64_t used = 0;     ///< of these, bytes that reads have needed in the first minute

  friend bool operator==(StartUse const&, StartUse const&) = default;
};

/// What is known of a layer's index.
enum class LayerState : std::uint8_t {
  proved,   ///< it was made by reading the layer, or compared with it
  pending,  ///< it is from elsewhere, and nobody has compared it with the layer
  failed,   ///< it was compared, and lies, or the layer is not what the image says
};

/// "proved" and so on.
[[nodiscard]] std::string_view name_of(LayerState state);

/// A layer's state, with the reason if there is one.
struct LayerProof {
  std::string layer;  ///< digest of the blob
  LayerState state = LayerState::pending;
  std::string problem{};  ///< how it failed, or why it is pending still; empty: nothing is known

  friend bool operator==(LayerProof const&, LayerProof const&) = default;
};

/// Files of which something was read before their layer failed.
struct ServedFiles {
  std::vector<std::string> names{};  ///< at most `most`
  std::uint64_t count = 0;           ///< of all
  static constexpr std::size_t most = 32;

  friend bool operator==(ServedFiles const&, ServedFiles const&) = default;
};

/// What a worker has counted.
struct WorkerCounts {
  std::uint64_t cached = 0;             ///< bytes of the image that are in its memory
  std::uint64_t reads = 0;              ///< of the image
  std::uint64_t bytes = 0;              ///< that these reads got
  std::uint64_t errors = 0;             ///< reads that failed
  std::uint64_t seen = 0;               ///< bytes of a layer without digests that have been read
  std::uint64_t to_prove = 0;           ///< bytes of that layer; 0: there is none
  bool proved = false;                  ///< whether all of them are right
  erofs_oci::Hedging::Counts hedges{};  ///< requests at the registry that were sent twice
  DiskUse disk{};                       ///< of layers that are kept on disk
  StartUse start{};                     ///< of the start list
  std::uint64_t memory = 0;             ///< bytes that its caches take, whatever for
  std::vector<LayerProof> layers{};     ///< of an image that is read by indexes; at most 256
  ServedFiles served{};                 ///< empty while no layer has failed
  std::vector<ByteRange> read{};        ///< of the device, while layers are pending; at most 256
  std::string mismatch{};               ///< what is wrong with them; empty: nothing is known to be

  friend bool operator==(WorkerCounts const&, WorkerCounts const&) = default;

  /// Encodes the counts as the text of a message, and decodes them; any other text yields zeros.
  /// Of the mismatch, 1000 characters are taken, of other texts 300, and those that are not
  /// printable become `?`.
  [[nodiscard]] std::string text() const;
  [[nodiscard]] static WorkerCounts parse(std::string const& text);
};

/// What a supervisor knows of its mount.
struct MountReport {
  erofs_oci::MountWay way{};
  std::string target;  ///< mount point, or empty
  std::string device;  ///< "/dev/nbd0", or empty
  pid_t worker = 0;
  bool worker_alive = false;
  unsigned restarts = 0;
  std::string last_error;
  WorkerCounts counts;         ///< `cached` of the present worker, else of all there were
  std::uint64_t size = 0;      ///< bytes of the device
  std::uint64_t metadata = 0;  ///< of these, bytes that come from this machine: metadata and zeros

  /// Whether all of the image is in the worker's memory or on disk, so that no read needs the
  /// registry.
  [[nodiscard]] bool is_complete() const noexcept {
    return (size != 0 && counts.cached + metadata >= size) || counts.disk.is_complete();
  }
  std::optional<erofs_oci::NbdRelayCounters> reads;  ///< of an NBD device
  std::size_t in_flight = 0;
  std::string verity{};  ///< root hash by which the kernel checks; empty: it does not
};

/// A JSON object, for `mount-oci status`.
[[nodiscard]] std::string report_json(MountReport const& report);

/// The name of the way in such an object; empty if it is none.
[[nodiscard]] std::string way_in_report(std::string_view json);

/// Prometheus' text format.
[[nodiscard]] std::string report_metrics(MountReport const& report);

}  // namespace mount_oci
