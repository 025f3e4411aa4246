// SPDX-License-Identifier: Apache-2.0
/// @file
/// MetricsServer: numbers for Prometheus, in a thread of their own.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

#include <client_sockets.hpp>

namespace oci_snapshotter {

/// Answers HTTP requests with a text until its end. What makes the text may block: nobody else
/// waits for it but other clients of the same address.
class MetricsServer {
 public:
  /// @param address  HOST:PORT of the loopback interface, or the absolute path of a unix socket
  /// @param text     called in the server's thread
  /// @error{as mount_oci::listen_metrics(), as there; an errno, as eventfd(2)}
  [[nodiscard]] static erofs_oci::Result<MetricsServer> start(std::string const& address,
                                                              std::function<std::string()> text);

 private:
  explicit MetricsServer(std::jthread thread) : thread_(std::move(thread)) {}

  std::jthread thread_;
};

}  // namespace oci_snapshotter
