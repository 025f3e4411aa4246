// SPDX-License-Identifier: Apache-2.0
/// @file
/// Numbers for Prometheus.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <poll.h>

#include "process.hpp"

namespace mount_oci {

/// A metric in Prometheus' text format. @spec{Prometheus exposition formats, text format 0.0.4}
/// @param kind    "counter" or "gauge"
/// @param labels  names and values; the values are quoted here
[[nodiscard]] std::string metric_text(
    std::string_view name, std::string_view kind, std::string_view help,
    std::vector<std::pair<std::string, std::string>> const& labels, std::uint64_t value);

/// Answers every HTTP request with a text and closes. For one thread's poll(2) loop; never blocks.
class MetricsSocket {
 public:
  using Text = std::function<std::string()>;

  /// Answers nothing.
  MetricsSocket() = default;

  /// Listens on HOST:PORT of this machine alone, or on a unix socket (0600) if the address begins
  /// with a slash; a socket that was left there is replaced.
  /// @error{Errc::invalid_argument, neither\, or a host that others could reach}
  /// @error{an errno, as bind(2)}
  [[nodiscard]] static Result<MetricsSocket> listen(std::string const& address, Text text);

  MetricsSocket(MetricsSocket&&) = default;
  MetricsSocket& operator=(MetricsSocket&& other) noexcept;
  ~MetricsSocket();

  /// Adds what to wait for.
  void watch(std::vector<pollfd>& fds) const;

  /// How many descriptors watch() adds.
  [[nodiscard]] std::size_t count() const noexcept { return clients_.size() + 1; }

  /// Does what can be done; `fds` are those of watch().
  void act(std::span<pollfd const> fds);

 private:
  struct Client {
    UniqueFd fd;
    std::string request{};
  };

  bool serve(Client& client) const;

  static constexpr std::size_t most_clients = 8;

  std::string path_;  // of a unix socket, or empty
  Text text_;
  UniqueFd listener_;
  std::vector<Client> clients_;
};

}  // namespace mount_oci
