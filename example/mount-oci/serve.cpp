// SPDX-License-Identifier: Apache-2.0
// Serving an image over NBD on a socket.
#include <cstddef>
#include <cstdio>
#include <stop_token>
#include <thread>
#include <utility>

#include <poll.h>

#include <erofs_oci/combinator/instrumented.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/nbd/server.hpp>
#include <erofs_oci/nbd/socket_listen.hpp>
#include <erofs_oci/nbd/wakeup.hpp>

#include "commands.hpp"
#include "helper_process.hpp"
#include "image.hpp"
#include "memory_keeper.hpp"
#include "proof_keeper.hpp"
#include "read_error.hpp"
#include "reader.hpp"

namespace mount_oci {

using erofs_oci::fail;
using erofs_oci::MountMessage;
using erofs_oci::SocketListen;

// Anybody who reaches the address is a client: 128 MiB of replies that nobody takes, or, with
// requests of the greatest length, 512 MiB.
constexpr std::size_t most_clients = 16;
constexpr std::size_t most_unsent = 8 * 1024 * 1024;

namespace {

/// What looks after the memory of the image, and the reads by which it goes.
struct Memory {
  erofs_oci::Metrics reads{};
  MemoryKeeper keeper;  // last: its thread uses the rest
};

/// Opens the image and serves it to the clients of a socket, until a signal comes.
Result<void> serve_clients(Options const& options, SocketListen connect, Memory& memory, Log& log) {
  EROFS_OCI_TRY_ASSIGN(auto const signals, Signals::take());
  EROFS_OCI_TRY_ASSIGN(auto opened, open_or_exit(options.image, signals, log));
  auto& image = opened.device;
  auto const& starts = options.image.starts;
  if (starts) starts->begin(std::move(image.starts));
  ProofKeeper keeper(options.image, log);
  if (image.proof && opened.to_prove) {
    image.proof->on_refuted([&log](Error const& error) {
      log.say(Level::error,
              "wrong bytes: " + error.message() + "; all reads of it fail from now on");
    });
  }
  keeper.begin(std::move(opened.to_prove), image.proof);
  end_opening();
  EROFS_OCI_TRY_ASSIGN(auto const wakeup, erofs_oci::nbd::Wakeup::open());
  auto const& reads = memory.reads;
  memory.keeper.begin(
      image.held, [&reads] { return reads.counts().reads + reads.counts().streams; },
      options.image.idle);

  erofs_oci::NbdServer server(
      erofs_oci::AnySource(
          Attended(erofs_oci::AnySource(erofs_oci::Instrumented(std::move(image.source),
                                                                erofs_oci::RecordTo(memory.reads))),
                   keeper)),
      std::move(connect),
      {.description = options.image.image,
       .zeros_from = image.zeros_from,
       .workers = worker_count(options.image),
       .max_sessions = most_clients,
       .limits = {.bytes = most_unsent},
       .on_read_error = [&log](std::uint64_t offset, std::uint32_t length,
                               Error const& error) { log_read_error(log, offset, length, error); },
       .on_session_error =
           [&log](Error const& error) { log.say(Level::info, "client: " + error.message()); }});
  auto stop = options.image.access.requests;
  std::jthread const watch([&] {
    if (signals.wait_or(wakeup.fd())) stop.request_stop();
  });
  auto done = server.run(stop.get_token(), [](SocketListen& listening) {
    std::printf("%s\n", listening.uri().c_str());
    std::fflush(stdout);
  });
  wakeup.notify();
  if (starts) starts->end();
  keeper.end();
  return done;
}

}  // namespace

Result<void> run_serve(Options const& given, Log& log) {
  auto options = given;
  auto connect = options.serve.socket.empty() ? SocketListen::open_tcp(options.serve.listen)
                                              : SocketListen::open_unix(options.serve.socket);
  if (!connect) return fail(std::move(connect).error());
  // The reader of an image cannot remove the socket's file. A helper does, with its copy.
  auto const remove = [&] { connect = fail(Errc::stopping, "removed"); };
  auto const answer = [&](MountMessage const&) {
    remove();
    return MountMessage{MountMessage::Kind::settled, {}, {}, {}};
  };
  EROFS_OCI_TRY_ASSIGN(auto const helper, HelperProcess::start(answer, remove));
  bound_heap();
  Memory memory{.keeper = MemoryKeeper(log)};  // before the process is confined
  auto done = become_reader(options.image, nullptr, {.accepts = true}, log).and_then([&] {
    options.image.starts = start_keeper_of(options.image, log);
    return serve_clients(options, *std::move(connect), memory, log);
  });
  static_cast<void>(helper.ask({MountMessage::Kind::settled, {}, {}, {}}));
  return done;
}

}  // namespace mount_oci
