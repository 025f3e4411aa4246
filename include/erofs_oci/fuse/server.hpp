// SPDX-License-Identifier: Apache-2.0
/// @file
/// The common parts of FuseFile and FuseTree: mounting, serving and unmounting.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/fuse/api.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/fuse/reply.hpp>
#include <erofs_oci/fuse/session.hpp>
#include <erofs_oci/host/mount_point.hpp>
#include <erofs_oci/host/unmount.hpp>

namespace erofs_oci {

/// What a server does with its mount when a stop is requested.
enum class FuseStop : std::uint8_t {
  unmount,  ///< it is unmounted; if in use, it vanishes from its directory and its users get
            ///< ENOTCONN
  leave,    ///< it stays, for another server: see FuseSession::share()
};

/// How FuseFile and FuseTree serve.
struct FuseServeOptions {
  FuseMountOptions mount{};
  /// Threads, so also reads of the source at once. 0: 2 + the number of processors, at least 16 for
  /// a remote source.
  std::size_t threads = 0;
  /// How far the kernel reads ahead, in KiB; only root can set more than 128. 0: as the kernel
  /// does.
  std::uint32_t read_ahead_kib = 1024;
  FuseStop on_stop = FuseStop::unmount;
  OnFuseFailure on_failure{};
  OnFuseTick on_tick{};  ///< see FuseSession::run()
  /// Requests that fail after this was requested are left to the next server, with what it was
  /// asked for; to be requested no later than what ends the service. Default: all are answered
  std::stop_token leave{};
  /// Called when no more requests are wanted, before those under way are waited for: ends the reads
  /// of the source early. From any thread, perhaps more than once.
  std::function<void()> on_end{};
};

namespace fuse::detail {

/// What a file system is to a session: its table and its object.
struct Handlers {
  fuse_lowlevel_ops const& operations;
  void* user;
  bool remote;
};

[[nodiscard]] inline std::size_t thread_count(FuseServeOptions const& options, bool remote) {
  if (options.threads != 0) return options.threads;
  auto const local = std::size_t{2} + std::max(std::thread::hardware_concurrency(), 1U);
  return remote ? std::max<std::size_t>(local, 16) : local;
}

/// Plainly, else by detaching it.
inline void unmount_at_end(std::string const& directory, FuseMountOptions const& options,
                           std::uint64_t mount) {
  if (unmount(directory, UnmountBusy::refuse, options.helper, mount)) return;
  // It may be gone already, and nothing more can be done about any other error.
  static_cast<void>(unmount(directory, UnmountBusy::detach, options.helper, mount));
}

/// Serves a connection that another process made, and leaves it mounted.
[[nodiscard]] inline Result<FuseEnd> serve(Handlers const& handlers,
                                           FuseServeOptions const& options,
                                           FuseConnection connection, std::stop_token stop,
                                           FunctionRef<void(FuseSession&)> ready,
                                           FunctionRef<void()> on_stop) {
  EROFS_OCI_TRY_ASSIGN(auto session,
                       FuseSession::open(handlers.operations, handlers.user, std::move(connection),
                                         thread_count(options, handlers.remote)));
  auto const end = [&] {
    if (options.on_end) options.on_end();
  };
  std::stop_callback const at_stop(stop, end);
  auto done = session.run(std::move(stop), ready, on_stop, options.on_tick, options.leave);
  end();
  return done;
}

/// Mounts, serves, and unmounts unless that has happened or is not wanted.
[[nodiscard]] inline Result<FuseEnd> mount_and_serve(Handlers const& handlers,
                                                     FuseServeOptions const& options,
                                                     std::string const& directory,
                                                     std::stop_token stop,
                                                     FunctionRef<void(FuseSession&)> ready) {
  EROFS_OCI_TRY_ASSIGN(auto connection, mount_fuse(directory, options.mount));
  EROFS_OCI_TRY_ASSIGN(auto const mount, mount_id_at(directory));
  auto mounted = true;
  auto const leave = [&] {
    mounted = false;
    if (options.on_stop == FuseStop::unmount) unmount_at_end(directory, options.mount, mount);
  };
  auto const begin = [&](FuseSession& session) {
    // Only root may; without, reading in sequence takes more requests.
    if (options.read_ahead_kib != 0) {
      static_cast<void>(set_fuse_read_ahead(directory, options.read_ahead_kib));
    }
    ready(session);
  };
  auto end = serve(handlers, options, std::move(connection), std::move(stop), begin, leave);
  if (!end && mounted) unmount_at_end(directory, options.mount, mount);
  return end;
}

}  // namespace fuse::detail
}  // namespace erofs_oci
