// SPDX-License-Identifier: Apache-2.0
/// @file
/// MountWorker: reads an image for a mount that a MountSupervisor keeps.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include <poll.h>

#include <erofs_oci/core/activity.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/fuse/server.hpp>
#include <erofs_oci/fuse/session.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/mount/fuse_message.hpp>
#include <erofs_oci/mount/fuse_serving.hpp>
#include <erofs_oci/mount/mount_channel.hpp>
#include <erofs_oci/mount/worker_process.hpp>
#include <erofs_oci/nbd/engine_protocol.hpp>
#include <erofs_oci/nbd/session.hpp>
#include <erofs_oci/nbd/wakeup.hpp>
#include <erofs_oci/posix/memory_file.hpp>
#include <erofs_oci/posix/signals.hpp>
#include <erofs_oci/posix/wait.hpp>

namespace erofs_oci {

/// What a worker tells the supervisor of the image that it has opened.
struct WorkerImage {
  std::uint64_t size = 0;        ///< bytes of the device
  std::uint64_t zeros_from = 0;  ///< bytes from there on are zeros; `size` if it is not known
  Bytes details{};               ///< of the program's own, which the library does not read
  /// Bytes from the start of the device by which a later worker is compared with the first one:
  /// such as can be read whatever has become of the layers' data. More than 64 KiB count as so
  /// many.
  std::uint64_t sample = std::uint64_t{64} * 1024;

  /// @error{an errno, as to_memory_file()}
  [[nodiscard]] Result<MountMessage> to_message() const {
    MountMessage message{.kind = MountMessage::Kind::opened,
                         .text = std::to_string(size) + " " + std::to_string(zeros_from) + " " +
                                 std::to_string(sample)};
    EROFS_OCI_TRY_ASSIGN(auto fd, to_memory_file(details));
    message.fds.push_back(std::move(fd));
    return message;
  }

  /// @error{Errc::protocol, the message is none of to_message()}
  [[nodiscard]] static Result<WorkerImage> from_message(MountMessage const& message) {
    WorkerImage image;
    auto text = std::string_view(message.text);
    auto const size = take_number<std::uint64_t>(text);
    if (!size || !take_char(text, ' ') || message.fds.size() != 1) {
      return fail(Errc::protocol, "worker: no image");
    }
    auto const zeros_from = take_number<std::uint64_t>(text);
    if (!zeros_from || !take_char(text, ' ')) {
      return fail(Errc::protocol, "worker: where zeros begin");
    }
    auto const sample = whole_number<std::uint64_t>(text);
    if (!sample) return fail(Errc::protocol, "worker: bytes of the sample");
    image.size = *size;
    image.zeros_from = *zeros_from;
    image.sample = *sample;
    EROFS_OCI_TRY_ASSIGN(image.details, from_memory_file(message.fds[0]));
    return image;
  }
};

/// How a worker serves.
struct MountWorkerOptions {
  FuseServing serving{};        ///< way, target and so on; for NBD only `way` and `threads` count
  OnReadError on_read_error{};  ///< for NBD: called for each failed read, from any thread
  std::function<void()> before_service{};  ///< called once, before anything waits for the worker
  /// Called at each sign of life, at most every 15 ms; false withholds the sign, and the supervisor
  /// replaces the worker. Default: as long as there are reads, one has ended in the last 2 minutes.
  std::function<bool(Activity<> const&)> is_well{};
  /// Called on a thread of its own when the supervisor reports that no process waits any more.
  std::function<void()> on_settled{};
  /// Called when no more reads are wanted, before those under way are waited for: ends them early.
  /// Those that fail then are left to the next worker. From any thread, perhaps more than once.
  std::function<void()> on_end{};
  /// Signals that end a worker that is a process; null: the caller's own business.
  Signals const* signals = nullptr;
};

/// The worker's end of the protocol between MountSupervisor and its workers. Use: open the image,
/// then serve().
///
/// @par Thread safety
/// serve() once; report(), trouble() and counts() from any thread.
class MountWorker {
 public:
  explicit MountWorker(WorkerSeat seat) noexcept : seat_(std::move(seat)) {}

  [[nodiscard]] WorkerSeat const& seat() const noexcept { return seat_; }

  /// Tells the supervisor why this worker fails.
  void report(Error const& error) const {
    seat_.channel.tell({MountMessage::Kind::failed, {}, error, {}});
  }

  /// Tells the supervisor why a read has failed.
  void trouble(std::string text) const {
    seat_.channel.tell({MountMessage::Kind::trouble, std::move(text), {}, {}});
  }

  /// Tells the supervisor what the program itself understands.
  void counts(std::string text) const {
    seat_.channel.tell({MountMessage::Kind::counts, std::move(text), {}, {}});
  }

  /// Tells the supervisor of the image, gets what is to be served, and serves the source there
  /// until nothing is left to serve, a signal comes, or a supervisor whose device this is has
  /// ended.
  /// @return whether nothing is left to serve: no other worker is needed
  /// @error{Errc::protocol, the supervisor is not understood}
  /// @error{as serve_by_fuse() and NbdEngine say}
  [[nodiscard]] Result<bool> serve(WorkerImage const& image, AnySource source,
                                   MountWorkerOptions options);

 private:
  /// Listens to the supervisor and to signals while the image is served.
  class Listener {
   public:
    /// @param ends_alone  the end of the supervisor ends this worker, too
    [[nodiscard]] static Result<std::unique_ptr<Listener>> make(MountWorker const& worker,
                                                                bool ends_alone) {
      EROFS_OCI_TRY_ASSIGN(auto ended, nbd::Wakeup::open());
      return std::unique_ptr<Listener>(new Listener(worker, std::move(ended), ends_alone));
    }

    ~Listener() { ended_.notify(); }

    [[nodiscard]] std::stop_token stop_token() const noexcept { return stop_.get_token(); }

   private:
    Listener(MountWorker const& worker, nbd::Wakeup ended, bool ends_alone)
        : worker_(worker),
          ended_(std::move(ended)),
          ends_alone_(ends_alone),
          thread_([this] { run(); }) {}

    void run() {
      auto const* const signals = worker_.options_.signals;
      auto listens = true;
      for (;;) {
        std::array<pollfd, 3> fds{{{ended_.fd(), POLLIN, 0},
                                   {signals != nullptr ? signals->fd() : -1, POLLIN, 0},
                                   {listens ? worker_.seat_.channel.fd() : -1, POLLIN, 0}}};
        if (!poll_until(fds, std::chrono::steady_clock::time_point::max())) return;
        if (fds[0].revents != 0) return;
        if (fds[1].revents != 0) {
          static_cast<void>(signals->wait());
          stop_.request_stop();
        }
        if (fds[2].revents != 0) listens = hear();
      }
    }

    bool hear() {
      auto const message = worker_.seat_.channel.receive();
      if (message && message->kind == MountMessage::Kind::settled && worker_.options_.on_settled) {
        worker_.options_.on_settled();
      }
      if (!message && ends_alone_) stop_.request_stop();
      return message.has_value();
    }

    MountWorker const& worker_;
    nbd::Wakeup ended_;
    bool ends_alone_;
    std::stop_source stop_;
    std::jthread thread_;
  };

  Result<bool> serve_nbd(AnySource source, nbd::RelayPort port);

  /// @param port  with the connection of an earlier worker, or without
  Result<bool> serve_fuse(AnySource source, MountMessage port);

  /// Gives the supervisor a copy of the connection, for the workers that replace this one.
  void begin_fuse(FuseSession& session) {
    if (auto const ok = tell_connected(session); !ok) {
      trouble("this worker cannot be replaced: " + ok.error().message());
    }
    if (auto const refused = session.refused(); refused != 0) {
      trouble(std::to_string(refused) + " requests that have crashed workers were refused");
    }
    options_.serving.mounter.reset();  // it has mounted
    seat_.heartbeat.answered();
  }

  [[nodiscard]] Result<void> tell_connected(FuseSession const& session) const {
    EROFS_OCI_TRY_ASSIGN(auto const connection, session.share());
    EROFS_OCI_TRY_ASSIGN(auto const message,
                         erofs_oci::to_message(MountMessage::Kind::connected, connection));
    return seat_.channel.send(message);
  }

  /// A sign of life, but not for each of thousands of packets a second.
  /// @param busy  the next call comes soon
  void beat(Activity<> const& work, bool busy) {
    using namespace std::chrono_literals;
    auto const now = std::chrono::steady_clock::now();
    if (busy == was_busy_ && now - last_beat_ < 15ms) return;
    auto const is_well = options_.is_well ? options_.is_well(work) : work.stalled() < 2min;
    if (!is_well) return;
    was_busy_ = busy;
    last_beat_ = now;
    seat_.heartbeat.beat(busy);
  }

  WorkerSeat seat_;
  MountWorkerOptions options_{};
  std::chrono::steady_clock::time_point last_beat_{};
  bool was_busy_ = false;
};

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/mount/detail/mount_worker_body.hpp>
#endif
