// SPDX-License-Identifier: Apache-2.0
/// @file
/// What mount/mount_worker.hpp only declares.
#pragma once

#include <optional>
#include <utility>

#include <erofs_oci/core/activity.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/fuse/server.hpp>
#include <erofs_oci/fuse/session.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/mount/fuse_message.hpp>
#include <erofs_oci/mount/fuse_serving.hpp>
#include <erofs_oci/mount/mount_channel.hpp>
#include <erofs_oci/mount/mount_worker.hpp>
#include <erofs_oci/nbd/engine.hpp>
#include <erofs_oci/nbd/engine_protocol.hpp>

namespace erofs_oci {

EROFS_OCI_BODY Result<bool> MountWorker::serve(WorkerImage const& image, AnySource source,
                                               MountWorkerOptions options) {
  EROFS_OCI_TRY_ASSIGN(auto const opened, image.to_message());
  EROFS_OCI_TRY(seat_.channel.send(opened));
  EROFS_OCI_TRY_ASSIGN(auto port, seat_.channel.receive());
  if (port.kind != MountMessage::Kind::port) return fail(Errc::protocol, "the supervisor");
  options_ = std::move(options);
  if (!is_nbd(options_.serving.way)) return serve_fuse(std::move(source), std::move(port));
  if (port.fds.size() != 2) return fail(Errc::protocol, "the supervisor: no port");
  return serve_nbd(std::move(source), {std::move(port.fds[0]), std::move(port.fds[1])});
}

EROFS_OCI_BODY Result<bool> MountWorker::serve_nbd(AnySource source, nbd::RelayPort port) {
  NbdEngineOptions options;
  options.workers = options_.serving.threads;
  options.on_read_error = options_.on_read_error;
  options.on_end = options_.on_end;
  options.on_tick = [this](Activity<> const& reads, bool busy) { beat(reads, busy); };
  EROFS_OCI_TRY_ASSIGN(auto engine, NbdEngine<AnySource>::open(std::move(source), std::move(port),
                                                               std::move(options)));
  EROFS_OCI_TRY_ASSIGN(auto const listener, Listener::make(*this, true));
  if (options_.before_service) options_.before_service();
  seat_.heartbeat.answered();
  EROFS_OCI_TRY(engine.run(listener->stop_token()));
  return false;  // the supervisor ends the device
}

EROFS_OCI_BODY Result<bool> MountWorker::serve_fuse(AnySource source, MountMessage port) {
  std::optional<FuseConnection> mounted;
  if (!port.fds.empty()) {
    EROFS_OCI_TRY_ASSIGN(mounted, connection_of(std::move(port)));
  }
  EROFS_OCI_TRY_ASSIGN(auto const listener, Listener::make(*this, seat_.is_thread));
  if (options_.before_service) options_.before_service();
  auto& what = options_.serving;
  what.on_stop = seat_.is_thread ? FuseStop::unmount : FuseStop::leave;
  if (!seat_.is_thread) what.leave = listener->stop_token();
  what.on_end = options_.on_end;
  what.on_tick = [this](Activity<> const& requests, bool busy) { beat(requests, busy); };
  EROFS_OCI_TRY_ASSIGN(
      auto const end,
      serve_by_fuse(what, std::move(source), std::move(mounted), listener->stop_token(),
                    [&](FuseSession& session) { begin_fuse(session); }));
  auto const unmounted = end == FuseEnd::unmounted;
  if (unmounted) seat_.heartbeat.finished();
  return unmounted;
}

}  // namespace erofs_oci
