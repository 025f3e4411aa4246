// SPDX-License-Identifier: Apache-2.0
#include "metrics_server.hpp"

#include <cerrno>
#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <metrics.hpp>

namespace oci_snapshotter {

using erofs_oci::fail_errno;
using erofs_oci::Result;
using erofs_oci::UniqueFd;

namespace {

void serve_until(std::stop_token const& stop, mount_oci::ClientSockets& clients,
                 UniqueFd const& wakeup) {
  std::stop_callback const wake(stop, [&] {
    std::uint64_t const one = 1;
    [[maybe_unused]] auto const n = ::write(wakeup.get(), &one, sizeof one);
  });
  std::vector<pollfd> fds;
  while (!stop.stop_requested()) {
    fds.assign(1, {wakeup.get(), POLLIN, 0});
    clients.watch(fds);
    if (::poll(fds.data(), fds.size(), -1) > 0) clients.act(std::span(fds).subspan(1));
  }
}

}  // namespace

Result<MetricsServer> MetricsServer::start(std::string const& address,
                                           std::function<std::string()> text) {
  UniqueFd wakeup(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wakeup) return fail_errno(errno, "eventfd");
  auto guarded = [text = std::move(text)] {
    auto made = erofs_oci::without_throwing([&]() -> Result<std::string> { return text(); });
    return made.value_or(std::string());
  };
  EROFS_OCI_TRY_ASSIGN(auto clients, mount_oci::listen_metrics(address, std::move(guarded)));
  return MetricsServer(std::jthread(
      [clients = std::move(clients), wakeup = std::move(wakeup)](
          std::stop_token const& stop) mutable { serve_until(stop, clients, wakeup); }));
}

}  // namespace oci_snapshotter
