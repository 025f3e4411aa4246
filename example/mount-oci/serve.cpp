// SPDX-License-Identifier: Apache-2.0
// Serving an image over NBD on a socket.
#include <cstdio>
#include <stop_token>
#include <thread>
#include <utility>

#include <poll.h>

#include <erofs_oci/nbd/server.hpp>
#include <erofs_oci/nbd/socket_listen.hpp>
#include <erofs_oci/nbd/wakeup.hpp>

#include "commands.hpp"
#include "image.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::SocketListen;

Result<SocketListen> listen(ServeOptions const& options) {
  if (!options.socket.empty()) return SocketListen::open_unix(options.socket);
  return SocketListen::open_tcp(options.listen);
}

}  // namespace

Result<void> run_serve(Options const& options, Log& log) {
  auto const signals = Signals::take();
  if (!signals) return fail(signals.error());
  auto image = open_or_exit(options.image, *signals, log);
  if (!image) return fail(std::move(image).error());
  auto connect = listen(options.serve);
  if (!connect) return fail(std::move(connect).error());
  auto const wakeup = erofs_oci::nbd::Wakeup::open();
  if (!wakeup) return fail(wakeup.error());

  erofs_oci::NbdServer server(
      std::move(image->source), *std::move(connect),
      {.description = options.image.image,
       .zeros_from = image->zeros_from,
       .workers = worker_count(options.image),
       .on_read_error =
           [&log](std::uint64_t offset, std::uint32_t length, Error const& error) {
             log.say(Level::error, "read of " + std::to_string(length) + " bytes at offset " +
                                       std::to_string(offset) + ": " + error.message());
           },
       .on_session_error =
           [&log](Error const& error) { log.say(Level::info, "client: " + error.message()); }});
  std::stop_source stop;
  std::jthread const watch([&] {
    if (signals->wait_or(wakeup->fd())) stop.request_stop();
  });
  auto done = server.run(stop.get_token(), [](SocketListen& listening) {
    std::printf("%s\n", listening.uri().c_str());
    std::fflush(stdout);
  });
  wakeup->notify();
  return done;
}

}  // namespace mount_oci
