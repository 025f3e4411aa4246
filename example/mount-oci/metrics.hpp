// SPDX-License-Identifier: Apache-2.0
/// @file
/// Numbers for Prometheus.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client_sockets.hpp"
#include "process.hpp"

namespace mount_oci {

/// Names and values.
using MetricLabels = std::vector<std::pair<std::string, std::string>>;

/// One number of a metric.
struct MetricSample {
  MetricLabels labels{};  ///< of no other sample of the metric; the values are quoted by others
  std::uint64_t value = 0;
};

/// A metric in Prometheus' text format, with all its samples. @spec{Prometheus exposition formats,
/// text format 0.0.4}
/// @param name  whole
/// @param kind  "counter" or "gauge"
[[nodiscard]] std::string metric_family(std::string_view name, std::string_view kind,
                                        std::string_view help,
                                        std::vector<MetricSample> const& samples);

/// metric_family() of one sample, whose name begins with `erofs_oci_`.
[[nodiscard]] std::string metric_text(std::string_view name, std::string_view kind,
                                      std::string_view help, MetricLabels const& labels,
                                      std::uint64_t value);

/// Answers every HTTP request with a text and closes. Listens on HOST:PORT of the loopback
/// interface, or on a unix socket (0600) if the address begins with a slash; replaces a socket
/// there.
/// @error{Errc::invalid_argument, neither\, or a host that others could reach}
/// @error{an errno, as bind(2)}
[[nodiscard]] Result<ClientSockets> listen_metrics(std::string const& address,
                                                   std::function<std::string()> text);

}  // namespace mount_oci
