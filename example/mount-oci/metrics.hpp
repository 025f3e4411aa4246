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

/// A metric in Prometheus' text format. @spec{Prometheus exposition formats, text format 0.0.4}
/// @param kind    "counter" or "gauge"
/// @param labels  names and values; the values are quoted here
[[nodiscard]] std::string metric_text(
    std::string_view name, std::string_view kind, std::string_view help,
    std::vector<std::pair<std::string, std::string>> const& labels, std::uint64_t value);

/// Answers every HTTP request with a text and closes. Listens on HOST:PORT of the loopback
/// interface, or on a unix socket (0600) if the address begins with a slash; replaces a socket
/// there.
/// @error{Errc::invalid_argument, neither\, or a host that others could reach}
/// @error{an errno, as bind(2)}
[[nodiscard]] Result<ClientSockets> listen_metrics(std::string const& address,
                                                   std::function<std::string()> text);

}  // namespace mount_oci
