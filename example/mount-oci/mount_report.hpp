// SPDX-License-Identifier: Apache-2.0
/// @file
/// How a mount is doing, in words for programs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <sys/types.h>

#include <erofs_oci/fuse/choose_mount.hpp>
#include <erofs_oci/nbd/relay.hpp>

namespace mount_oci {

/// What a worker has counted.
struct WorkerCounts {
  std::uint64_t cached = 0;  ///< bytes of the image that are in its memory
  std::uint64_t reads = 0;   ///< of the image
  std::uint64_t bytes = 0;   ///< that these reads got
  std::uint64_t errors = 0;  ///< reads that failed

  friend bool operator==(WorkerCounts const&, WorkerCounts const&) = default;

  /// As a message's text, and back; what is no such text is zeros.
  [[nodiscard]] std::string text() const;
  [[nodiscard]] static WorkerCounts parse(std::string const& text);
};

/// What the keeper of a mount knows.
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
  std::uint64_t metadata = 0;  ///< of these, bytes at the front that come from this machine

  /// Whether no read needs the image's own place any more, while the worker lives.
  [[nodiscard]] bool is_complete() const noexcept {
    return size != 0 && counts.cached + metadata >= size;
  }
  std::optional<erofs_oci::NbdRelayCounters> reads;  ///< of an NBD device
  std::size_t in_flight = 0;
};

/// A JSON object, for `mount-oci status`.
[[nodiscard]] std::string report_json(MountReport const& report);

/// The name of the way in such an object; empty if it is none.
[[nodiscard]] std::string way_in_report(std::string_view json);

/// Prometheus' text format.
[[nodiscard]] std::string report_metrics(MountReport const& report);

}  // namespace mount_oci
